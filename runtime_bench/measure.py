"""Measure the files of one or several model folders, each in a process of its own.

The processes live side by side but only one works at a time: latency is taken in short rounds that
go through all files in turn, so that a machine that slows down slows all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runtime_bench.errors import ManifestError, RuntimeMissingError
from runtime_bench.host import HostFacts, host_facts, host_matches, is_board
from runtime_bench.manifest import TOP1, Manifest, ModelFile, read_manifest
from runtime_bench.measurement import Measurement
from runtime_bench.process import WorkerProcess
from runtime_bench.trace import Trace
from runtime_bench.verify import verify_files, verify_sums

if TYPE_CHECKING:
    Progress = Callable[[str], None]

ROUND_RUNS = 20
_ROUND_LEAD_IN = 2  # untimed runs that refill the caches after another process's turn
# A runtime's idle threads spin for a while after a run and would disturb the next process's turn.
_SPIN_DOWN_S = 0.05
_MEMORY_RUNS = 5
_SILENCE_S = 600.0


@dataclass
class _Job:
    """A file, its live process and the figures gathered so far."""

    manifest: Manifest
    file: ModelFile
    worker: WorkerProcess
    figures: dict[str, Any] = field(default_factory=dict)
    times_ms: list[float] = field(default_factory=list)
    predictions: tuple[int, ...] | None = None


def measure_folder(
    folder: Path,
    *,
    samples: Path | None = None,
    threads: int = 1,
    runs: int = 100,
    warmup: int = 10,
    board_is_host: Literal["auto"] | bool = "auto",
    progress: Progress | None = None,
    silence_s: float = _SILENCE_S,
    runtime: str | None = None,
) -> tuple[Measurement, ...]:
    """Measure every file of one model folder; see `measure_folders`."""
    return measure_folders(
        [folder],
        samples=samples,
        threads=threads,
        runs=runs,
        warmup=warmup,
        board_is_host=board_is_host,
        progress=progress,
        silence_s=silence_s,
        runtime=runtime,
    )


def measure_folders(
    folders: Sequence[Path],
    *,
    samples: Path | None = None,
    threads: int = 1,
    runs: int = 100,
    warmup: int = 10,
    board_is_host: Literal["auto"] | bool = "auto",
    progress: Progress | None = None,
    silence_s: float = _SILENCE_S,
    runtime: str | None = None,
    traces: list[Trace] | None = None,
) -> tuple[Measurement, ...]:
    """Measure every file of the folders in one run, in manifest order.

    Args:
        folders: model folders of one board, e.g. DIR/bundle and DIR/reference.
        samples: an .npz as in `samples.py`; None leaves the accuracy figures None, and so does a
            manifest with a metric of the user's.
        threads: of each operator.
        runs, warmup: timed and untimed single-image runs per file.
        board_is_host: whether this machine is the board; "auto" asks COMPRESS_EXPORT_BOARD.
        progress: gets one line of text per step.
        silence_s: the longest a measuring process may go without a sign of life, in seconds.
        runtime: one of the names in `manifest.RUNTIMES` for the files of its format; None takes the
            first that is installed.
        traces: gets what stands behind the figures, one entry per file that was run.

    Raises:
        ManifestError: a folder is incomplete or altered, or the folders are for several boards.
        SamplesError: the samples can't be read or don't fit the network.
        BenchError: a file could not be loaded or run. A file whose runtime isn't installed is not
            an error: its measurement says so in `note`.
    """
    if threads < 1 or runs < 1 or warmup < 0:
        raise ValueError(
            f"threads {threads}, runs {runs}, warmup {warmup}: at least 1, 1 and 0 are needed"
        )
    say = progress or (lambda _: None)
    manifests = [_checked(folder) for folder in folders]
    _one_board(manifests)
    if samples is not None:
        from runtime_bench.samples import open_samples

        # unfit samples fail before anything is measured
        for manifest in (m for m in manifests if m.metric == TOP1):
            open_samples(samples, manifest.image_shape, len(manifest.classes))
    host = host_facts()
    results: dict[tuple[int, int], Measurement] = {}
    with ExitStack() as stack:
        jobs: dict[tuple[int, int], _Job] = {}
        for place, manifest, file in _numbered(manifests):
            results[place] = _static(manifest, file, threads, host, board_is_host)
            say(f"{file.name}: loading")
            try:
                jobs[place] = _start(stack, manifest, file, threads, silence_s, runtime)
            except RuntimeMissingError as error:
                say(f"{file.name}: not measured, {error}")
                results[place] = replace(results[place], note=f"not measured: {error}")
                continue
            if warmup:
                jobs[place].worker.ask(_time(manifest, 0, warmup))
            say(f"{file.name}: loaded and warmed up")
        pause_s = _SPIN_DOWN_S if threads > 1 and len(jobs) > 1 else 0.0
        _time_in_rounds(list(jobs.values()), runs, pause_s, say)
        for place, job in jobs.items():
            _measure_memory(job, threads, silence_s, say)
            if samples is not None and job.manifest.metric == TOP1:
                _evaluate(job, samples, say)
            elif samples is not None:
                metric = job.manifest.metric
                job.figures["note"] = (
                    f"accuracy is the metric {metric}, which needs compress-export"
                )
            results[place] = replace(results[place], **job.figures)
            if traces is not None:
                traces.append(Trace(job.file.name, tuple(job.times_ms), job.predictions))
    return tuple(results[place] for place in sorted(results))


def describe_folders(folders: Sequence[Path]) -> tuple[Measurement, ...]:
    """Return what is known of every file without running it; nothing but sizes is filled in.

    Raises:
        ManifestError: a folder is incomplete or altered, or the folders are for several boards.
    """
    manifests = [_checked(folder) for folder in folders]
    _one_board(manifests)
    host = host_facts()
    return tuple(
        replace(_static(manifest, file, 1, host, "auto"), note="the bench did not run")
        for _, manifest, file in _numbered(manifests)
    )


def _checked(folder: Path) -> Manifest:
    verify_sums(Path(folder))
    manifest = read_manifest(Path(folder))
    verify_files(manifest)
    return manifest


def _one_board(manifests: Sequence[Manifest]) -> None:
    boards = sorted({manifest.board.id for manifest in manifests})
    if len(boards) != 1:
        raise ManifestError(f"folders of one board expected, got {len(boards)}: {boards}")


def _numbered(
    manifests: Sequence[Manifest],
) -> Iterable[tuple[tuple[int, int], Manifest, ModelFile]]:
    for outer, manifest in enumerate(manifests):
        for inner, file in enumerate(manifest.files):
            yield (outer, inner), manifest, file


def _static(
    manifest: Manifest,
    file: ModelFile,
    threads: int,
    host: HostFacts,
    board_is_host: Literal["auto"] | bool,
) -> Measurement:
    """What is known without running the file; the size was just compared with the disk."""
    on_board = is_board(manifest.board) if board_is_host == "auto" else board_is_host
    elsewhere = file.format in manifest.board.timed_elsewhere
    return Measurement(
        name=file.name,
        stage=file.stage,
        folder=str(manifest.folder),
        path=file.path,
        format=file.format,
        precision=file.precision,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        weight_bytes=file.weight_bytes,
        activation_bytes=file.activation_bytes,
        threads=threads,
        measured_on="board" if on_board else "host",
        host_matches_board=host_matches(host, manifest.board),
        profile=file.profile.name if file.profile else None,
        benchable=not elsewhere and (file.profile is None or file.profile.benchable),
    )


def _start(
    stack: ExitStack,
    manifest: Manifest,
    file: ModelFile,
    threads: int,
    silence_s: float,
    runtime: str | None,
) -> _Job:
    """A process with the file loaded, which then waits for its turns."""
    worker = stack.enter_context(WorkerProcess(file.name, silence_s))
    job = _Job(manifest, file, worker)
    job.figures.update(worker.ask(_load(manifest, file, threads, runtime=runtime)))
    return job


def _measure_memory(job: _Job, threads: int, silence_s: float, say: Progress) -> None:
    """What takes a process of its own: onnxruntime without its arena, a microcontroller's arena."""
    manifest, file = job.manifest, job.file
    if file.format == "onnx":
        with WorkerProcess(file.name, silence_s) as worker:
            worker.ask(_load(manifest, file, threads, arena=False))
            answer = worker.ask(_time(manifest, _MEMORY_RUNS, 0))
            job.figures["peak_rss_no_arena_bytes"] = answer["peak_rss_bytes"]
    elif manifest.board.kind == "mcu" and file.input.quantized:
        say(f"{file.name}: measuring the arena")
        with WorkerProcess(file.name, silence_s) as worker, suppress(RuntimeMissingError):
            job.figures.update(worker.ask({"op": "arena", **_place(manifest, file)}))


def _time_in_rounds(jobs: Sequence[_Job], runs: int, pause_s: float, say: Progress) -> None:
    sizes = round_sizes(runs)
    for number, size in enumerate(sizes):
        say(f"latency: round {number + 1} of {len(sizes)}")
        # Every second round runs backwards, so that no file is always first after a pause.
        for job in jobs if number % 2 == 0 else reversed(jobs):
            time.sleep(pause_s)
            answer = job.worker.ask(_time(job.manifest, size, _ROUND_LEAD_IN))
            job.times_ms.extend(answer["times_ms"])
            job.figures["peak_rss_bytes"] = answer["peak_rss_bytes"]
    from runtime_bench.metrics import latency_percentiles  # numpy is imported while nobody waits

    for job in jobs:
        job.figures["latency_ms"] = latency_percentiles(job.times_ms)
        job.figures["latency_runs"] = len(job.times_ms)


def round_sizes(runs: int) -> list[int]:
    """Timed runs per round: even shares of at most ROUND_RUNS that add up to `runs`."""
    rounds = -(-runs // ROUND_RUNS)
    return [runs // rounds + (1 if number < runs % rounds else 0) for number in range(rounds)]


def _evaluate(job: _Job, samples: Path, say: Progress) -> None:
    say(f"{job.file.name}: evaluating")
    request = {
        "op": "evaluate",
        "samples": str(Path(samples).resolve()),
        "preprocessing": asdict(job.manifest.preprocessing),
    }
    found = job.worker.ask(request, lambda done: say(f"{job.file.name}: {done} images evaluated"))
    job.predictions = tuple(found.pop("predictions"))
    job.figures.update(found)


def _load(
    manifest: Manifest,
    file: ModelFile,
    threads: int,
    *,
    arena: bool = True,
    runtime: str | None = None,
) -> dict[str, Any]:
    about = {"threads": threads, "arena": arena, "runtime": runtime}
    return {"op": "load", **_place(manifest, file), **about}


def _place(manifest: Manifest, file: ModelFile) -> dict[str, Any]:
    return {"folder": str(manifest.folder.resolve()), "file": asdict(file)}


def _time(manifest: Manifest, runs: int, warmup: int) -> dict[str, Any]:
    shape = list(manifest.image_shape)
    return {"op": "time", "runs": runs, "warmup": warmup, "image_shape": shape}

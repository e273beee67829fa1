"""Peak memory and time of each stage over the size of the network.

    python -m benchmarks.bench_large --work FOLDER [--blocks 1 2 5 13 34] [--stages slim ...]

Each stage is the user's own command, in a process of its own: slim, export (float32), int8, bench
and gate, for networks of `large_net`. Memory is that of the process and its children, looked at 20
times a second: all of the resident set, and the part of it that no file backs, which alone has to
fit into memory (the kernel drops clean pages of memory-mapped files and reads them again). A stage
that is in the results already isn't run again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.large_net import FACTORIES, IMAGE_SIZE
from runtime_bench import host_facts
from runtime_bench.memory import parse_status

RESULTS = Path(__file__).parent / "results" / "large.jsonl"
TFLITE = ("tflite", "tflite int8")
STAGES = ("load", "slim", "export", "int8", *TFLITE, "bench", "gate")
POLL_S = 0.05
GIB = 2**30
EXPECTED_CODES = (0, 1)  # a budget may be missed: the networks are larger than their board wants


@dataclass(frozen=True)
class Peak:
    """The largest that was seen: all of the resident set, and what no file backs, in bytes."""

    rss_bytes: int = 0
    anonymous_bytes: int = 0


@dataclass(frozen=True)
class Row:
    """One stage of one network: a line of the results."""

    blocks: int
    stage: str
    weight_bytes: int
    peak_rss_bytes: int
    peak_anonymous_bytes: int
    seconds: float
    cpu_seconds: float
    exit_code: int
    last_line: str
    threads: int
    load_average: float
    host: str


def main() -> None:
    """Run what the results lack, smallest networks first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="needs 8 times the largest net")
    parser.add_argument("--blocks", type=int, nargs="+", choices=FACTORIES, default=[1, 2, 5, 13])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--limit-gib", type=float, default=16, help="address space of a process")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for blocks in sorted(arguments.blocks):
        weights = write_weights(arguments.work, blocks)
        for stage in arguments.stages:
            too_large = stage in TFLITE and weights.stat().st_size > 2 * GIB  # for the format
            if too_large or (blocks, stage) in done(arguments.results):
                continue
            row = run_stage(arguments.work, blocks, stage, weights, arguments.limit_gib)
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
            print(row, flush=True)
            if row.exit_code not in EXPECTED_CODES:
                break


def done(results: Path) -> set[tuple[int, str]]:
    """Networks and stages that ended well."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return {(row.blocks, row.stage) for row in rows if row.exit_code in EXPECTED_CODES}


def write_weights(work: Path, blocks: int) -> Path:
    """A safetensors file of a network with fresh weights, made once, in a process of its own."""
    path = work / f"net_{blocks}.safetensors"
    if not path.is_file():
        code = (
            "import sys, torch; from safetensors.torch import save_file; "
            "from benchmarks.large_net import LargeNet; torch.manual_seed(0); "
            "save_file(LargeNet(int(sys.argv[1])).state_dict(), sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", code, str(blocks), f"{path}.part"], check=True)
        Path(f"{path}.part").rename(path)
    return path


def command(work: Path, blocks: int, stage: str, weights: Path) -> list[str]:
    """The command of a stage; results lie in folders of the network and the stage."""
    slim, int8, out = (work / f"{blocks}-{name}" for name in ("slim", "int8", stage))
    start = [sys.executable, "-m", "compress_export"]
    job = [
        *start, "--board", "x86-64", "--data", "benchmarks.large_net:images", "--threads", "1",
        "--input-size", str(IMAGE_SIZE), "--max-drop", "100", "--force",
        "--formats", "tflite" if stage in TFLITE else "onnx",
        "--device", "cpu", "--latency-runs", "5", "--first-aid", "none",
    ]  # fmt: skip
    given = ["--model", f"benchmarks.large_net:{FACTORIES[blocks]}", "--weights", str(weights)]
    quantize = [*job, *given, "--baseline-epochs", "0", "--stages", "quantize"]
    fast = ["--baseline-epochs", "0", "--search-epochs", "0", "--finetune-epochs", "0"]
    by_stage = {
        "load": [*job, *given, "--dry-run"],
        "slim": [*job, *given, *fast, "--method", "l1", "--target-macs", "0.95",
                 "--stages", "prune", "--out", str(slim)],
        "export": [*quantize, "--precision", "float32", "--out", str(out)],
        "int8": [*quantize, "--precision", "int8", "--out", str(int8)],
        "tflite": [*quantize, "--precision", "float32", "--out", str(out)],
        "tflite int8": [*quantize, "--precision", "int8", "--out", str(out)],
        "bench": [*job, "--stages", "bench", "--out", str(int8)],
        "gate": [*start, "gate", str(int8)],
    }  # fmt: skip
    return by_stage[stage]


def run_stage(work: Path, blocks: int, stage: str, weights: Path, limit_gib: float) -> Row:
    """Run one command to its end and watch its memory."""
    log = work / f"{blocks}-{stage}.log"
    limit = int(limit_gib * GIB)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(
            command(work, blocks, stage, weights),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        resource.prlimit(child.pid, resource.RLIMIT_AS, (limit, limit))
        try:
            peak = watch(child)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-1:]
    return Row(
        blocks=blocks,
        stage=stage,
        weight_bytes=weights.stat().st_size,
        peak_rss_bytes=peak.rss_bytes,
        peak_anonymous_bytes=peak.anonymous_bytes,
        seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        exit_code=child.returncode,
        last_line="".join(last).replace(str(work), "WORK"),
        threads=1,
        load_average=round(os.getloadavg()[0], 1),
        host=host_facts().model,
    )


def watch(child: subprocess.Popen[bytes]) -> Peak:
    """Look at all processes of the child's session until it ends."""
    peak = Peak()
    while child.poll() is None:
        sizes = [memory_of(process) for process in session_of(child.pid)]
        peak = Peak(
            max(peak.rss_bytes, sum(size.rss_bytes for size in sizes)),
            max(peak.anonymous_bytes, sum(size.anonymous_bytes for size in sizes)),
        )
        time.sleep(POLL_S)
    return peak


def session_of(leader: int) -> Sequence[int]:
    """Processes of a session, by the number of its first process."""
    found = [leader]
    for folder in Path("/proc").iterdir():
        try:
            mine = folder.name.isdigit() and os.getsid(int(folder.name)) == leader
            # One that has forked and isn't yet another program has the leader's own pages.
            if mine and command_of(int(folder.name)) != command_of(leader):
                found.append(int(folder.name))
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


def command_of(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def memory_of(process: int) -> Peak:
    """What a process holds now; nothing where it has just ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return Peak()
    sizes = parse_status(text)
    anonymous = sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
    return Peak(sizes.get("VmRSS", 0), anonymous)


if __name__ == "__main__":
    main()

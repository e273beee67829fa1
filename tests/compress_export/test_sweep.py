"""Sweeps: the file, its trials, the page; on Ray itself where that is installed."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from html_runs import write_run
from rich.console import Console
from test_resume import LIMIT_S
from tiny_jobs import NETWORK, QUICK, in_a_process

import boards
from compress_export.cli import main
from compress_export.errors import UsageError
from compress_export.exit_codes import ExitCode
from compress_export.job import checked_board
from compress_export.job_file import resolve_options
from compress_export.provenance import inputs_of
from compress_export.sweep import run as module
from compress_export.sweep.finished import refuse_changed
from compress_export.sweep.plan import Sweep, read_sweep
from compress_export.sweep.run import run_sweep, run_trial

FILE = """
boards: [jetson, rpi4]
targets:
  - target-macs: 0.5
  - {target-size: 60KiB, method: l1}
seeds: [0, 7]
options: {data: digits, search-epochs: 2}
cpus: 2
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def tiny_sweep(folder: Path, weights: Path, finetune_epochs: int = 1) -> Path:
    """Two trials that end in seconds."""
    words = f"--baseline-epochs 1 --search-epochs 1 --finetune-epochs {finetune_epochs}"
    pairs = zip(*[iter([*NETWORK, *QUICK, *words.split(), "--stages", "prune"])] * 2, strict=True)
    options = {name.removeprefix("--"): value for name, value in pairs}
    content = {
        "boards": ["jetson"],
        "targets": [{"target-macs": 0.5}],
        "seeds": [0, 1],
        "options": {**options, "weights": str(weights)},
    }
    return written(folder, yaml.safe_dump(content))


def test_every_target_on_every_board_with_every_seed(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, FILE), tmp_path / "out")
    assert [trial.name for trial in sweep.trials] == [
        f"{board}-{target}-seed-{seed}"
        for board in ("jetson", "rpi4")
        for target in ("macs-0.5", "size-60KiB-method-l1")
        for seed in (0, 7)
    ]
    assert (sweep.cpus, sweep.gpus) == (2, 0)
    last = sweep.trials[-1].options
    assert (last.board, last.seed, last.method, last.target_size_bytes) == ("rpi4", 7, "l1", 61440)
    assert (last.search_epochs, last.target_macs) == (2, None)
    assert last.out == tmp_path / "out" / sweep.trials[-1].name


def test_a_trial_is_a_job_file(tmp_path: Path) -> None:
    for trial in read_sweep(written(tmp_path, FILE), tmp_path / "out").trials:
        path = tmp_path / "job.yaml"
        path.write_text(trial.job, encoding="utf-8")
        job = resolve_options({"config": str(path)})
        assert job.identity() == trial.options.identity()
        assert job.out == trial.options.out


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("boards: [jetson]", "targets: must be a list of options"),
        (FILE + "seed: [1]", "unknown option 'seed', did you mean 'seeds'?"),
        (FILE.replace("[0, 7]", "[a]"), "seeds: must be a list of whole numbers"),
        (FILE.replace("[0, 7]", "[true]"), "seeds: must be a list of whole numbers"),
        (FILE.replace("target-macs", "target-mac"), "did you mean 'target-macs'?"),
        (FILE.replace("0.5", "7"), "--target-macs 7"),
        (FILE.replace("{data: digits", "{board: coral"), "'board' is for the sweep to decide"),
        (FILE.replace("[0, 7]", "[3, 3]"), "two trials would be jetson-macs-0.5-seed-3"),
        (FILE.replace("cpus: 2", "cpus: many"), "cpus many: must be a number"),
        (FILE.replace("{data: digits, search-epochs: 2}", "7"), "options: must be"),
        ("- jetson", "holds a list"),
        ("boards: [", "not valid YAML"),
    ],
)
def test_mistakes_in_the_file_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    path = written(tmp_path, text)
    assert main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 2
    complained = capsys.readouterr().err
    assert named in complained
    assert complained.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read (No such file or directory)" in capsys.readouterr().err


def test_without_ray_one_line_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", str(written(tmp_path, FILE)), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'compress-export[sweep]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [("rpi4", "rpi44", "rpi44"), ("data: digits", "data: nowhere", "nowhere")],
)
def test_what_is_not_there_is_named_before_ray_starts(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    named: str,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())  # nothing of it is called
    path = written(tmp_path, FILE.replace(before, after))
    assert main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_page_that_cannot_be_drawn_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials that run for hours must not be lost over a picture of them."""

    def no_templates(*_: object) -> None:
        raise ValueError("no templates")

    monkeypatch.setattr("compress_export.html_report.write_comparison", no_templates)
    said = io.StringIO()
    module._compare(tmp_path, {"one": ExitCode.PASSED}, Console(file=said))
    assert said.getvalue() == "report.html was not written, ValueError: no templates\n"
    assert json.loads((tmp_path / "sweep.json").read_text()) == {"one": 0}


class OneAfterTheOther:
    """What `run_sweep` uses of Ray, in this process."""

    exceptions = SimpleNamespace(RayError=ConnectionError)

    def remote(self, **_: object) -> Any:
        return lambda function: SimpleNamespace(remote=lambda *given: lambda: function(*given))

    def wait(self, running: list[Any]) -> tuple[list[Any], list[Any]]:
        return running[:1], running[1:]

    def get(self, task: Any) -> Any:
        return task()


def run_on(
    ray: Any, sweep: Sweep, out: Path, monkeypatch: pytest.MonkeyPatch, trial: Any
) -> tuple[ExitCode, str]:
    @contextmanager
    def connected(*_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(module, "_installed", lambda: ray)
    monkeypatch.setattr(module, "_connected", connected)
    monkeypatch.setattr(module, "run_trial", trial)
    monkeypatch.setattr("compress_export.job.checked_task", lambda *_: None)
    said = io.StringIO()
    return run_sweep(sweep, out, None, Console(file=said, width=200)), said.getvalue()


def test_the_page_grows_with_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    sweep = read_sweep(written(tmp_path, FILE), out)
    pages = []

    def trial(trial: Any, folder: Path, _: Path) -> ExitCode:
        page = folder / "report.html"
        pages.append(
            page.read_text(encoding="utf-8").count('<th scope="row">') if page.exists() else 0
        )
        if trial.options.seed == 7:
            (folder / f"{trial.name}.log").write_text("started\ncompress-export: no such thing\n")
            return ExitCode.TOOL_FAILED
        if trial.options.board == "rpi4":
            raise ConnectionError
        write_run(folder / trial.name)
        return ExitCode.BUDGET_MISSED

    code, said = run_on(OneAfterTheOther(), sweep, out, monkeypatch, trial)
    assert code is ExitCode.TOOL_FAILED
    assert "1 of 8: jetson-macs-0.5-seed-0: fail" in said
    assert "2 of 8: jetson-macs-0.5-seed-7: failed: compress-export: no such thing" in said
    assert "rpi4-macs-0.5-seed-0: failed: its worker died" in said
    codes = json.loads((out / "sweep.json").read_text())
    assert codes == {
        t.name: 1 if t.options.seed == 0 and "jetson" in t.name else 3 for t in sweep.trials
    }
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "jetson-macs-0.5-seed-0: slim.int8.onnx" in page
    assert "jetson-size-60KiB-method-l1-seed-0: slim.int8.onnx" in page
    assert "no other one beats" in page
    assert pages[0] == 0 < pages[1] < pages[-1]

    with pytest.raises(UsageError, match="of a sweep with other options"):
        other = read_sweep(written(tmp_path, FILE.replace("2}", "3}")), out)
        run_on(OneAfterTheOther(), other, out, monkeypatch, trial)


@pytest.mark.parametrize("changed", ["board", "weights"])
def test_a_finished_trial_whose_inputs_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """The job file, which only names them, is the same."""
    board, weights, out = tmp_path / "mine.yaml", tmp_path / "net.pt", tmp_path / "out"
    shipped = Path(boards.__file__).with_name("jetson.yaml").read_text(encoding="utf-8")
    board.write_text(shipped.replace("id: jetson", "id: mine"), encoding="utf-8")
    weights.write_bytes(b"first")
    options = f"{{data: digits, max-drop: 2, weights: {weights}}}"
    text = f"boards: [{board}]\ntargets: [target-macs: 0.5]\noptions: {options}"
    sweep = read_sweep(written(tmp_path, text), out)

    def trial(trial: Any, folder: Path, _: Path) -> ExitCode:
        given = trial.options
        if not (folder / trial.name).exists():
            write_run(folder / trial.name)
            path = folder / trial.name / "report.json"
            task = SimpleNamespace(data=SimpleNamespace(fingerprint=""))
            inputs = inputs_of(given, checked_board(given)[0], task)  # type: ignore[arg-type]
            path.write_text(json.dumps({**json.loads(path.read_text()), "inputs": inputs}))
        return ExitCode.PASSED

    for _ in range(2):
        assert run_on(OneAfterTheOther(), sweep, out, monkeypatch, trial)[0] is ExitCode.PASSED
    if changed == "board":
        board.write_text(board.read_text().replace("id: mine", "id: mine2"), encoding="utf-8")
    else:
        weights.write_bytes(b"second")
    with pytest.raises(UsageError, match=f"since mine-macs-0.5-seed-0 was finished, {changed} /"):
        run_on(OneAfterTheOther(), sweep, out, monkeypatch, trial)


def test_a_trial_is_done_once(tmp_path: Path, trained: Path) -> None:
    out = tmp_path / "out"
    first, second = read_sweep(tiny_sweep(tmp_path, trained), out).trials
    out.mkdir()
    for trial in (first, second):
        (out / f"{trial.name}.yaml").write_text(trial.job, encoding="utf-8")
    here = Path.cwd()
    assert run_trial(first, out, here) is ExitCode.PASSED
    refuse_changed([first], out)  # nothing has changed
    log = out / f"{first.name}.log"
    assert "written to" in log.read_text()
    size = log.stat().st_size
    assert run_trial(first, out, here) is ExitCode.PASSED
    assert log.stat().st_size == size

    (out / f"{second.name}.yaml").write_text("board: nowhere\n", encoding="utf-8")
    assert run_trial(second, out, here) is ExitCode.TOOL_FAILED
    assert "nowhere" in (out / f"{second.name}.log").read_text()


def test_a_worker_that_is_killed_costs_an_epoch(tmp_path: Path, trained: Path) -> None:
    pytest.importorskip("ray", reason="the extra sweep is not installed")
    import subprocess

    out = tmp_path / "out"
    command, environment = in_a_process(
        out, "sweep", tiny_sweep(tmp_path, trained, finetune_epochs=60)
    )
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    give_up = time.monotonic() + LIMIT_S
    while not (found := list(out.glob("*.run/rung-1/finetune.pt"))):
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.01)
    run = found[0].parents[1]
    os.kill(int((run / "lock").read_text()), signal.SIGKILL)
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert "2 of 2" in said
    assert json.loads((out / "sweep.json").read_text()) == {
        f"jetson-macs-0.5-seed-{seed}": 0 for seed in (0, 1)
    }
    log = (out / f"{run.stem}.log").read_text()
    assert log.count("finetune epoch 1 ") == 1

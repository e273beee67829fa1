"""What long work shows, and what stays of it in files."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from compress_export import JobOptions, open_job
from compress_export.pace import Batches, Pace, duration
from compress_export.progress import RunLog


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_log_file_gets_one_line_per_epoch(tmp_path: Path) -> None:
    shown = io.StringIO()
    with RunLog(tmp_path, Console(file=shown)) as log:
        for step in range(1, 5):
            log.step("search", step, 4, {"loss": 1.0})
        log.epoch("search", 1, {"loss": 1.0, "kept_share": 0.25})
    assert shown.getvalue() == "search epoch 1  loss 1.0000  kept_share 0.2500\n"


def test_lines_are_shown_as_they_are() -> None:
    shown = io.StringIO()
    RunLog(None, Console(file=shown)).say("data: mine:cat:images, [red]not markup")
    assert shown.getvalue() == "data: mine:cat:images, [red]not markup\n"


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    shown = io.StringIO()
    with RunLog(tmp_path, Console(file=shown, force_terminal=True)) as log:
        log.batches = Batches(images=64, per_epoch=2)
        log.step("search", 1, 4, {"loss": 1.0, "kept_share": 0.25})
    assert "epoch 1/2" in shown.getvalue()
    assert "kept 25.0 %" in shown.getvalue()


def test_a_log_gets_a_line_a_minute_within_long_epochs() -> None:
    shown, clock = io.StringIO(), iter(range(0, 10_000, 10))
    log = RunLog(None, Console(file=shown), clock=lambda: float(next(clock)))
    log.batches = Batches(images=100, per_epoch=50)
    log.epoch("finetune", 1, {"loss": 2.0, "validation_top1": 0.5})
    for step in range(51, 60):
        log.step("finetune", step, 100, {"loss": 1.5})
    lines = shown.getvalue().splitlines()[1:]
    assert 1 <= len(lines) <= 3
    assert lines[0].startswith("finetune: epoch 2/2, ")
    for word in ("images/s", "left", "loss 1.500", "validation 50.00 %", "MiB"):
        assert word in lines[0]


def test_lines_of_which_there_are_many_reach_a_log_once_a_minute() -> None:
    shown, clock = io.StringIO(), iter(range(0, 10_000, 10))
    log = RunLog(None, Console(file=shown), clock=lambda: float(next(clock)))
    for count in range(12):
        log.say_seldom(f"{count} images evaluated")
    assert shown.getvalue().splitlines() == ["5 images evaluated", "11 images evaluated"]


def test_pace_is_that_of_the_last_half_minute() -> None:
    pace = Pace(Batches(images=32, per_epoch=100))
    for second in range(100):
        pace.note(second, 10 * second, 2000)  # 10 steps a second, then 5
    for second in range(100, 161):
        pace.note(second, 990 + 5 * (second - 99), 2000)
    assert pace.steps_per_s == pytest.approx(5)
    assert pace.texts == ["epoch 13/20", "64 %", "160 images/s", "2 min left"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.4, "8 s"), (100, "2 min"), (89 * 60, "89 min"), (7500, "2 h 05 min")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_steps_of_a_search_without_training_have_no_epochs() -> None:
    pace = Pace(None)
    pace.note(0, 1, 10)
    assert pace.texts == ["1/10", "10 %"]
    pace.note(2, 2, 10)
    assert pace.texts == ["2/10", "20 %", "0.5 steps/s", "16 s left"]


def test_policies_of_a_resumed_search_follow_each_other(tmp_path: Path) -> None:
    for first, last in ((1, 30), (21, 40)):  # cut off at 30, resumed from the checkpoint at 20
        with RunLog(tmp_path, Console(file=io.StringIO())) as log:
            observer = log.within("rung-1")
            for step in range(first, last + 1):
                observer.policy(step / 40, torch.full((3,), step / 40))
            observer.epoch("search", 1, {"loss": 1.0})
    with np.load(tmp_path / "rung-1" / "policy.npz") as found:
        progress, rows = found["progress"], found["probabilities"]
    assert progress.tolist() == [step / 40 for step in range(1, 41)]
    assert np.allclose(rows, progress[:, None], atol=1e-3)


def test_reading_images_moves_a_bar_of_its_own(tmp_path: Path) -> None:
    shown = io.StringIO()
    options = JobOptions(
        board="jetson", model="tiny_networks:two_blocks", input_size=8, out=tmp_path / "out"
    )
    with open_job(options, Console(file=shown, force_terminal=True, width=100)):
        pass
    bar, _, rest = shown.getvalue().partition("data: ")
    assert "images" in bar
    assert "/1797" in bar
    assert "/1797" not in rest


def test_a_repeated_epoch_replaces_its_row(tmp_path: Path) -> None:
    with RunLog(tmp_path, Console(file=io.StringIO())) as log:
        for epoch, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5)):
            log.epoch("search", epoch, {"loss": loss})
    found = [(row["epoch"], row["loss"]) for row in rows(tmp_path / "search.csv")]
    assert found == [("1", "3"), ("2", "2.5")]


def test_stages_within_a_folder_do_not_meet(tmp_path: Path) -> None:
    with RunLog(tmp_path, Console(file=io.StringIO())) as log:
        for rung, loss in (("rung-1", 3.0), ("rung-2", 2.0)):
            log.within(rung).epoch("search", 1, {"loss": loss})
    assert [row["loss"] for row in rows(tmp_path / "rung-1" / "search.csv")] == ["3"]
    assert [row["loss"] for row in rows(tmp_path / "rung-2" / "search.csv")] == ["2"]


def test_time_of_a_stage_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(None, Console(file=io.StringIO()))
    monkeypatch.setattr(time, "perf_counter", iter([10.0, 11.5, 20.0, 22.25]).__next__)
    for _ in range(2):
        with log.timed("export"):
            pass
    assert log.timings_seconds == {"export": 3.75}

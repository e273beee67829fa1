"""What long work shows, and what stays of it in files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from rich.console import Console

from compress_export import JobOptions, open_job
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


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    shown = io.StringIO()
    with RunLog(tmp_path, Console(file=shown, force_terminal=True)) as log:
        log.step("search", 1, 2, {"loss": 1.0, "kept_share": 0.25})
    assert "kept_share 0.250" in shown.getvalue()


def test_reading_images_moves_a_bar_of_its_own(tmp_path: Path) -> None:
    shown = io.StringIO()
    options = JobOptions(
        board="jetson", model="tiny_networks:two_blocks", input_size=8, out=tmp_path / "out"
    )
    with open_job(options, Console(file=shown, force_terminal=True, width=100)):
        pass
    bar, _, rest = shown.getvalue().partition("data: ")
    assert "images" in bar
    assert "0/1797" in bar
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


def test_time_of_a_stage_adds_up() -> None:
    log = RunLog(None, Console(file=io.StringIO()))
    for _ in range(2):
        with log.timed("export"):
            pass
    assert list(log.timings_seconds) == ["export"]
    assert log.timings_seconds["export"] >= 0

"""Files that several processes add to lose nothing, however their turns fall."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from compress_export.deploy.destination import Destination
from compress_export.deploy.home import bring_home
from compress_export.deploy.many import Outcome
from compress_export.exit_codes import ExitCode
from compress_export.gate.history import add_to_history
from compress_export.gate.judged import Case
from compress_export.turns import turn_at
from compress_export.whole_files import write_whole
from runtime_bench import Check


def while_another_adds(path: Path, others: Any, add: Callable[[], object]) -> Any:
    """Start adding in the middle of another one's turn, who then writes; return the content."""
    thread = Thread(target=add)
    with turn_at(path):
        thread.start()
        thread.join(timeout=0.5)  # without turns it has read and written by now
        write_whole(path, json.dumps(others))
    thread.join(timeout=60)
    assert [one.name for one in path.parent.iterdir()] == [path.name], "a lock file is left"
    return json.loads(path.read_text(encoding="utf-8"))


def test_gates_that_fill_one_history(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    case = Case("jetson", Check("slim.int8.onnx", "file_size_mib", 1.0, 2.0, "MiB", "pass"))
    content = while_another_adds(path, [{"name": "other"}], lambda: add_to_history(path, [case]))
    assert [entry["name"] for entry in content] == [
        "other",
        "jetson / slim.int8.onnx / file_size_mib",
    ]


def test_deploys_that_bring_figures_home(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "report.json", "{}")
    device = Destination.parse("pi@board:/opt")
    outcome = Outcome(device, ExitCode.PASSED, measured={"device": "mine"})
    content = while_another_adds(
        path,
        {"device_measurements": [{"device": "other"}]},
        lambda: bring_home([outcome], tmp_path / "bundle"),
    )
    assert [one["device"] for one in content["device_measurements"]] == ["other", "mine"]


def test_a_folder_that_cannot_be_locked_stops_nobody(tmp_path: Path) -> None:
    with turn_at(tmp_path / "missing" / "file"):
        pass

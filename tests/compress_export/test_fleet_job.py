"""Fleets on a tiny network: shared work, a folder per board, the worst code, going on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_jobs import NETWORK, Ended, run_here

from boards import load_board
from compress_export.cli import main
from compress_export.job import checked_board
from compress_export.options import JobOptions
from compress_export.provenance import board_sha256
from runtime_bench import host_facts, read_manifest, verify_files, verify_sums

WORDS = "--formats onnx --target-macs 0.5 --max-drop 60 --baseline-epochs 1 --seed 2"
EPOCHS = "--search-epochs 1 --finetune-epochs 1"


@pytest.fixture(scope="session")
def boards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two boards of this machine's own kind with one need, the second too small, and a Jetson."""
    folder = tmp_path_factory.mktemp("boards")
    paths = []
    for name, rss_mib in (("roomy", 4096), ("tight", 1)):
        content = load_board("x86-64-avx2").model_dump(mode="json", exclude_none=True)
        content["id"], content["aliases"] = name, []
        content["cpu"] |= {"arch": host_facts().arch, "isa": []}
        content["budgets"]["peak_rss_mib"] = rss_mib
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        paths.append(str(path))
    return [*paths, "jetson"]


def arguments(boards: list[str], trained: Path, *more: str) -> list[str | Path]:
    named = [word for board in boards for word in ("--board", board)]
    return [*named, *NETWORK, "--weights", trained, *WORDS.split(), *EPOCHS.split(), *more]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, boards: list[str], trained: Path) -> Ended:
    """All stages. Tests only read it."""
    return run_here(tmp_path_factory.mktemp("fleet") / "out", *arguments(boards, trained))


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def files(folder: Path) -> dict[str, str]:
    """What a job made, by content."""
    return {item["name"]: item["sha256"] for item in report(folder)["artifacts"]}


def test_each_need_is_compressed_once(fleet: Ended) -> None:
    assert "need 1 of 2: roomy, tight" in fleet.said
    assert "need 2 of 2: jetson" in fleet.said
    assert fleet.said.count("baseline epoch 1") == 1
    assert "baseline: the one that was trained for roomy" in fleet.said
    assert fleet.said.count("search epoch 1") == 1
    assert "search: the one that was run for roomy" in fleet.said


def test_the_worst_board_decides(fleet: Ended) -> None:
    assert fleet.code == 1
    found = json.loads((fleet.out / "fleet.json").read_text())
    assert [(entry["board"], entry["need"], entry["exit_code"]) for entry in found["fleet"]] == [
        ("roomy", "roomy", 0),
        ("tight", "roomy", 1),
        ("jetson", "jetson", 0),
    ]
    assert found["verdict"] == "fail"
    page = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in page for key in found)
    (failed,) = (check for check in found["checks"] if check["status"] == "fail")
    assert (failed["board"], failed["budget"], failed["limit"]) == ("tight", "peak_rss_mib", 1)
    assert "tight" in fleet.said.splitlines()[-4]


def test_every_board_has_a_folder_of_its_own(fleet: Ended) -> None:
    names = {path.name for path in fleet.out.iterdir()}
    assert names == {"roomy", "tight", "jetson", "fleet.json", "fleet.md", "report.html"}
    for name in ("roomy", "tight", "jetson"):
        manifest = read_manifest(fleet.out / name / "bundle")
        verify_files(manifest)
        verify_sums(fleet.out / name / "bundle")
        assert manifest.board.id == report(fleet.out / name)["board"] == name
        assert read_manifest(fleet.out / name / "reference").board.id == name
    assert files(fleet.out / "roomy") == files(fleet.out / "tight")
    assert files(fleet.out / "roomy") != files(fleet.out / "jetson")
    assert read_manifest(fleet.out / "tight" / "bundle").budgets["peak_rss_mib"] == 1
    assert not (fleet.run / "jobs" / "roomy").exists()


def test_an_adopted_folder_names_its_own_board(fleet: Ended, boards: list[str]) -> None:
    for given in boards:
        board = load_board(given)
        report = json.loads((fleet.out / board.id / "report.json").read_text())
        options = JobOptions(**report["options"])
        assert options.board == given
        assert report["inputs"]["board_sha256"] == board_sha256(checked_board(options)[0])


def test_one_page_compares_the_boards(fleet: Ended) -> None:
    page = (fleet.out / "report.html").read_text(encoding="utf-8")
    assert "tight: slim.int8.onnx" in page and "roomy: slim.int8.onnx" in page


def test_the_gate_takes_a_fleet(fleet: Ended, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", str(fleet.out)]) == 1
    said = capsys.readouterr().out
    assert "fail       tight slim.int8.onnx peak_rss_mib" in said
    assert main(["gate", str(fleet.out / "roomy")]) == 0
    capsys.readouterr()
    assert main(["gate", str(fleet.out), "--why"]) == 1
    said = capsys.readouterr().out
    assert "roomy slim.int8.onnx by layer" in said and "jetson slim.int8.onnx by layer" in said


def test_a_job_in_a_fleet_ends_as_it_would_alone(
    fleet: Ended, boards: list[str], trained: Path, tmp_path: Path
) -> None:
    alone = run_here(
        tmp_path / "out", *arguments(boards[2:], trained, "--stages", "prune,quantize")
    )
    assert alone.code == 0, alone.complained
    assert files(alone.out) == files(fleet.out / "jetson")
    name = "torch/slim/model.safetensors"
    assert (alone.out / name).read_bytes() == (fleet.out / "jetson" / name).read_bytes()


def test_a_mistake_in_the_data_costs_no_unfinished_fleet(
    boards: list[str], trained: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "out.run" / "jobs" / "roomy.run" / "baseline.pt"
    kept.parent.mkdir(parents=True)
    kept.touch()
    (tmp_path / "out.run" / "options.json").write_text("{}")
    refused = run_here(tmp_path / "out", *arguments(boards, trained, "--force", "--data", "digit"))
    assert refused.code == 2
    assert "did you mean digits?" in refused.complained
    assert kept.exists()


def test_an_interrupted_fleet_goes_on(
    fleet: Ended,
    boards: list[str],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = arguments(boards, trained, "--stages", "prune,quantize")
    with monkeypatch.context() as patched:
        patched.setattr("compress_export.pipeline.publish", _once_then_interrupt())
        interrupted = run_here(tmp_path / "out", *words)
    assert interrupted.code == 130
    assert not interrupted.out.exists()
    refused = run_here(tmp_path / "out", *words)
    assert refused.code == 2
    assert "--resume" in refused.complained
    other = run_here(tmp_path / "out", *words, "--board", "rpi5", "--resume")
    assert other.code == 2
    assert "--board was" in other.complained
    resumed = run_here(tmp_path / "out", *words, "--resume")
    assert resumed.code == 0, resumed.complained
    assert "roomy: finished before" in resumed.said
    assert "epoch 1" not in resumed.said
    for name in ("roomy", "tight", "jetson"):
        assert files(resumed.out / name) == files(fleet.out / name)


def _once_then_interrupt() -> Callable[..., Any]:
    from compress_export.pipeline import publish

    calls = []

    def publish_once(*given: Any) -> Any:
        calls.append(given)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return publish(*given)

    return publish_once

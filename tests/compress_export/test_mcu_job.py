"""A job for a microcontroller: the arena is measured and stands in report, verdict and firmware."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_jobs import NETWORK, Ended, run_here

from boards import load_board
from runtime_bench import verify_sums

pytest.importorskip("tflite_micro", reason="tflite-micro has no wheel for this Python")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Ended:
    out = tmp_path_factory.mktemp("mcu") / "out"
    wanted = "--board stm32h747 --stages quantize,bench --baseline-epochs 0 --max-drop 60"
    return run_here(out, *NETWORK, "--weights", trained, *wanted.split())


def test_ram_and_flash_are_held_to_what_the_board_has(ended: Ended) -> None:
    assert ended.code == 0, ended.complained
    (file,) = [a for a in ended.report["artifacts"] if a["path"].startswith("bundle/")]
    arena = file["arena"]
    # Input and output alone are in the lower bound too; records come on top in the arena.
    assert file["activation_bytes"] < arena["smallest_bytes"]
    assert arena["head_bytes"] + arena["tail_bytes"] == arena["total_bytes"]
    checks = {check["budget"]: check for check in ended.report["checks"]}
    board = load_board("stm32h747")
    for budget, size_bytes, limit in (
        ("activation_memory_mib", arena["smallest_bytes"], board.budgets.activation_memory_mib),
        ("ram_mib", arena["smallest_bytes"], board.memory.usable_mib),
        ("flash_mib", file["size_bytes"], board.storage.usable_mib),
    ):
        assert checks[budget]["value"] == pytest.approx(size_bytes / 2**20)
        assert (checks[budget]["limit"], checks[budget]["status"]) == (limit, "pass")
    assert "smallest arena in tflite-micro" in checks["ram_mib"]["note"]


def test_firmware_has_the_measured_arena(ended: Ended) -> None:
    bundle = ended.out / "bundle"
    (file,) = [a for a in ended.report["artifacts"] if a["path"].startswith("bundle/")]
    header = (bundle / "model_data.h").read_text()
    (constant,) = re.findall(r"#define TENSOR_ARENA_BYTES (\d+)  // measured", header)
    assert 0 <= int(constant) - file["arena"]["smallest_bytes"] < 1024
    card = (bundle / "FIRMWARE.md").read_text()
    added = re.findall(r"resolver\.Add(\w+)\(\);", card)
    assert len(added) == len(file["arena"]["operators"])
    assert "Conv2D" in added
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert f"| {manifest['files'][0]['input']['scale']} |" in card
    verify_sums(bundle)
    names = {line.split("  ")[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()}
    assert {"model_data.h", "model_data.cc", "FIRMWARE.md", "bench.pyz"} <= names

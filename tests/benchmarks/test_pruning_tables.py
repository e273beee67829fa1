"""The benchmarks' page: what it makes of given results, and that it shows the committed ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.pruning import results
from benchmarks.pruning.page.comparison import Comparison, area_table, compare, glance, target_table
from benchmarks.pruning.page.comparison import time_table as seconds_table
from benchmarks.pruning.page.file_tables import (
    best_references,
    latency_pairs,
    latency_table,
    showcase_table,
    tiny_table,
)
from benchmarks.pruning.page.markdown import fill, with_range
from benchmarks.pruning.page.other_tables import screening_table
from benchmarks.pruning.page.plots import PICTURES, draw
from benchmarks.pruning.page.records import read_entries, right_answers
from benchmarks.pruning.page.sections import SECTIONS, Found
from benchmarks.pruning.tables import PAGE, filled, pictures
from compressor.errors import InputError

IMAGES = 1000
WHOLE_BYTES = 200_000
ENVIRONMENT = {
    "date": "2026-01-02",
    "commit": "abc1234",
    "processor": "x86_64",
    "device": "cpu",
    "threads": 1,
    "torch": "2.0",
}


def answers(wrong: range) -> dict[str, Any]:
    """All images right but these."""
    right = np.ones(IMAGES, bool)
    right[list(wrong)] = False
    return {"test_top1": float(right.mean()), "test_right": results.pack(right)}


def run(variant: str, share: float, seed: int, wrong: range, **changes: Any) -> dict[str, Any]:
    """A row of runs.jsonl whose bytes fall as its MACs do."""
    row = {
        "network": "resnet20",
        "variant": variant,
        "cost": "macs",
        "share": share,
        "seed": seed,
        "epochs": 20,
        "search_epochs": 6 if variant == "decore" else 0,
        "learning_rate": 0.05,
        "validation_top1": 0.9,
        "shares": {"macs": share, "weight_bytes": share, "activation_bytes": 1.0},
        "int8_weight_bytes": int(WHOLE_BYTES * share),
        "seconds": {"choice": 10.0, "finetune": 90.0},
        "environment": ENVIRONMENT,
    }
    return row | answers(wrong) | changes


RUNS = [
    run("continued", 1.0, seed, range(0, 50)) for seed in (0, 1)
] + [
    run(variant, share, seed, range(0, wrong + seed))
    for variant, halves, quarters in (
        ("decore", 100, 150),
        ("taylor", 100, 160),
        ("tp-magnitude-local", 150, 200),
        ("tp-magnitude-local-own", 170, 210),
    )
    for share, wrong in ((0.5, halves), (0.25, quarters))
    for seed in (0, 1)
]  # fmt: skip
BASELINE = {
    "network": "resnet20",
    "epochs": 30,
    "validation_top1": 0.95,
    "curves": [{"stage": "baseline", "epoch": e, "validation_top1": 0.9} for e in range(1, 31)],
    "environment": ENVIRONMENT,
    **answers(range(0, 60)),
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def compared(folder: Path, rows: list[dict[str, Any]] = RUNS) -> list[Comparison]:
    return compare(read_entries(write(folder / "runs.jsonl", rows)), [BASELINE])


def cells(table: str, start: str) -> list[str]:
    """The cells of the first row that begins so."""
    line = next(line for line in table.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_what_the_committed_results_give() -> None:
    """Mended by `python -m benchmarks.pruning.tables`, never by hand."""
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, Found.read(results.FOLDER)) == page


def test_the_page_shows_pictures_that_exist_and_can_be_drawn() -> None:
    shown = pictures(PAGE.read_text(encoding="utf-8"))
    assert {path.stem for path in (PAGE.parent / "images").glob("*.png")} >= set(shown)
    assert set(shown) <= set(PICTURES)


def test_packed_answers_come_back_without_their_padding() -> None:
    row = answers(range(3, 7))
    right = right_answers(row)
    assert right.shape == (IMAGES,)
    assert np.flatnonzero(~right).tolist() == [3, 4, 5, 6]


def test_differences_are_those_of_the_answers(tmp_path: Path) -> None:
    half, quarter = compared(tmp_path)
    assert (half.target.share, quarter.target.share) == (0.5, 0.25)
    found = half.differences["tp-magnitude-local"]
    # The same 50 images more are wrong in both seeds: 5 points, as sure as images can make it.
    assert found.mean == pytest.approx(5.0)
    assert found.above and found.seeds == 2
    assert half.differences["taylor"].mean == pytest.approx(0.0)
    assert not half.differences["taylor"].above
    assert half.differences["baseline"].mean == pytest.approx((60 - 100.5) / 10)
    assert half.differences["continued"].high < 0


def test_a_target_lists_baselines_first_and_folds_own_recipes_in(tmp_path: Path) -> None:
    half, _ = compared(tmp_path)
    table = target_table(half)
    first = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert first == [
        "baseline", "continued baseline", "`decore`", "`taylor`", "`tp-magnitude-local`",
    ]  # fmt: skip
    peer = cells(table, "`tp-magnitude-local`")
    assert peer[1:3] == ["2", "84.95 [84.90, 85.00]"]
    assert peer[3].startswith("+5.00 [") and peer[4] == "above"
    assert peer[5] == "82.95 [82.90, 83.00]" and peer[6].startswith("+7.00 [")
    assert cells(table, "`taylor`")[4] == "not told apart"
    assert cells(table, "continued baseline")[4] == "below"
    assert cells(table, "baseline")[-1] == f"{WHOLE_BYTES / 1024:.1f}"


def test_only_seeds_of_both_count(tmp_path: Path) -> None:
    rows = [row for row in RUNS if (row["variant"], row["seed"]) != ("tp-magnitude-local", 1)]
    half, _ = compared(tmp_path, rows)
    assert half.differences["tp-magnitude-local"].seeds == 1
    rows = [row for row in RUNS if row["variant"] != "taylor" or row["seed"] == 1]
    rows = [row for row in rows if row["variant"] != "decore" or row["seed"] == 0]
    half, _ = compared(tmp_path, rows)
    assert "taylor" not in half.differences
    assert cells(target_table(half), "`taylor`")[3:5] == ["", ""]


def test_at_a_glance_the_best_peer_is_named(tmp_path: Path) -> None:
    line = cells(glance(compared(tmp_path)), "resnet20, 25 % of the MACs, 20 epochs")
    assert line[3].startswith("`tp-magnitude-local` 79.95")
    assert line[5].startswith("`taylor` 83.95")


def test_areas_are_over_the_logarithm_of_the_bytes_up_to_the_unpruned(tmp_path: Path) -> None:
    table = area_table(compared(tmp_path))
    # 25 to 50 % and 50 to 100 % are equally wide, so the middle counts twice.
    ours = (84.95 + 2 * 89.95 + 95.0) / 4
    peer = (79.95 + 2 * 84.95 + 95.0) / 4
    row = next(line for line in table.splitlines() if "`tp-magnitude-local` |" in line)
    _, _, kib, area, gap = (cell.strip() for cell in row.strip("|").split("|"))
    assert kib == f"{WHOLE_BYTES / 4096:.1f} to {WHOLE_BYTES / 1024:.1f}"
    assert float(area) == pytest.approx(peer, abs=0.011)
    assert float(gap) == pytest.approx(ours - peer, abs=0.011)


def test_only_unusual_settings_of_a_method_are_in_its_name(tmp_path: Path) -> None:
    other = run("taylor", 0.5, 0, range(0, 90), learning_rate=0.02)
    half, quarter = compared(tmp_path, [other, *RUNS])
    names = {entry.method for entry in half.entries}
    assert {"taylor", "taylor (search 0, rate 0.02)"} <= names
    assert half.differences["taylor (search 0, rate 0.02)"].seeds == 1
    assert {entry.method for entry in quarter.entries} == names - {"taylor (search 0, rate 0.02)"}


def test_time_is_the_mean_over_seeds_and_cpu_where_it_was_kept(tmp_path: Path) -> None:
    rows = [dict(row) for row in RUNS]
    for row in rows:
        row["seconds"] = {"choice": 10.0 + row["seed"], "finetune": 90.0}
        if row["variant"] == "decore":
            row["cpu_seconds"] = {"choice": 8.0, "finetune": 80.0}
    table = seconds_table(compared(tmp_path, rows))
    ours = next(line for line in table.splitlines() if "`decore`" in line)
    assert ours.endswith("| 6 + 14 | 10 | 90 | 100 | 88 |")
    assert next(line for line in table.splitlines() if "`taylor`" in line).endswith("| 100 |  |")


def test_screening_sorts_by_validation_and_reads_no_test_images(tmp_path: Path) -> None:
    rows = [run("decore", 0.5, 0, range(0), validation_top1=0.8)]
    rows.append(run("taylor", 0.5, 0, range(0), validation_top1=0.85))
    for row in rows:
        del row["test_top1"], row["test_right"]
    table = screening_table(read_entries(write(tmp_path / "screening.jsonl", rows)))
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:]] == [
        "`taylor`",
        "`decore`",
    ]
    assert "85.00" in table


def test_tiny_files_are_compared_with_the_resnet8_chosen_on_validation() -> None:
    def tiny(name: str, network: str, wrong: range, **more: Any) -> dict[str, Any]:
        found = answers(wrong)
        return {
            "run": name,
            "network": network,
            "test_images": IMAGES,
            "size_bytes": 98_304,
            "test_top1": found["test_top1"],
            "int8_test_top1": found["test_top1"],
            "int8_test_right": found["test_right"],
            **more,
        }

    recipe = {"learning_rate": 0.1, "weight_decay": 2e-4}
    rows = [
        tiny("short", "resnet8", range(0, 90), epochs=9, validation_top1=0.80, seed=0, **recipe),
        tiny("a", "resnet8", range(0, 100), epochs=60, validation_top1=0.86, seed=0, **recipe),
        tiny("b", "resnet8", range(0, 120), epochs=60, validation_top1=0.85, seed=1, **recipe),
        tiny("ours", "resnet20", range(0, 50)),
        {**tiny("big", "resnet20", range(0, 50)), "size_bytes": 98_305},
    ]
    assert {row["run"] for row in best_references(rows)} == {"a", "b"}
    table = tiny_table(rows)
    assert cells(table, "`ours`")[3:] == ["yes", "95.00", "95.00", cells(table, "`big`")[-1]]
    assert cells(table, "`ours`")[-1].startswith("+6.00 [")
    assert cells(table, "`big`")[3] == "no"
    assert cells(table, "`a`")[-1] == ""


def test_a_latency_search_is_paired_with_its_macs_side() -> None:
    def side(cost: str, seed: int, wrong: range, ratio: float) -> dict[str, Any]:
        found = answers(wrong)
        file = {"top1": found["test_top1"], "right": found["test_right"], "size_bytes": 1}
        more = {"runtime": "onnxruntime 1", "latency_ms": 0.2 * ratio, "latency_ratio": ratio}
        more |= {"same_latency": ratio <= 1.02, "int8": file, "cost": cost}
        return run("decore", 0.25, seed, wrong, **more)

    rows = [side("macs", seed, range(0, 100), 1.0) for seed in (0, 1)]
    rows += [side("latency-onnx", seed, range(0, 80), 0.99 + 0.05 * seed) for seed in (0, 1)]
    (key,) = latency_pairs(rows)
    assert (key.network, key.share, key.runtime) == ("resnet20", 0.25, "onnxruntime 1")
    macs, latency = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in latency_table(rows).splitlines()[2:]
    )
    assert macs[5] == "yes" and macs[8] == ""
    assert latency[2] == "0, 1" and latency[5] == "no"
    assert latency[7] == "92.00 [92.00, 92.00]" and latency[8].startswith("+2.00 [")


def test_the_showcase_has_every_column() -> None:
    file = {
        "role": "slim", "format": "tflite", "precision": "int8", "size_bytes": 3 * 2**19,
        "size_factor": 20.0, "top1": 0.9, "difference_points": -0.5, "difference_low": -0.7,
        "difference_high": -0.3, "precision_macro": 0.91, "recall_macro": 0.92,
        "eval_seconds": 2.5, "eval_factor": 5.0, "runtime_seconds": 2.0, "runtime_factor": 6.0,
    }  # fmt: skip
    assert cells(showcase_table({"files": [file]}), "slim INT8 TFLite")[1:] == [
        "1.50", "20.0", "90.00", "-0.50 [-0.70, -0.30]", "91.00", "92.00",
        "2.50", "5.00", "2.00", "6.00",
    ]  # fmt: skip


def test_missing_files_give_no_section(tmp_path: Path) -> None:
    found = Found.read(tmp_path / "pruning")
    assert {name: section(found) for name, section in SECTIONS.items()} == dict.fromkeys(
        SECTIONS, ""
    )


def test_filling_keeps_the_prose_and_is_idempotent() -> None:
    page = "before\n<!-- generated: one -->\nold | 1 |\n<!-- end -->\nafter\n"
    once = fill(page, {"one": "new"})
    assert once == "before\n<!-- generated: one -->\n\nnew\n\n<!-- end -->\nafter\n"
    assert fill(once, {"one": "new"}) == once
    with pytest.raises(InputError, match="two"):
        fill(page, {"two": "new"})


def test_a_range_is_shown_where_there_is_one() -> None:
    assert with_range([0.5], 1, scale=100) == "50.0"
    assert with_range([0.5, 0.7], 1, scale=100) == "60.0 [50.0, 70.0]"
    assert with_range(None, 1) == ""


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("agg")
    folder = tmp_path / "pruning"
    write(folder / "runs.jsonl", RUNS)
    write(folder / "baselines.jsonl", [BASELINE])
    found = Found.read(folder)
    text = "".join(section(found) for section in SECTIONS.values())
    names = pictures(text)
    assert {"accuracy-macs", "accuracy-bytes", "time-to-result"} <= set(names)
    draw(found, ["accuracy-bytes"], tmp_path / "one")
    draw(found, ["accuracy-bytes"], tmp_path / "two")
    first, second = (
        (tmp_path / name / "accuracy-bytes.png").read_bytes() for name in ("one", "two")
    )
    assert first == second and first.startswith(b"\x89PNG")


def test_every_generated_table_has_equally_many_cells_a_row() -> None:
    """A method's name or a number must not break a row."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime_bench import Check, Measurement, exit_code, overall, slower_int8, verdict, violations
from runtime_bench.manifest import (
    BoardRef,
    Manifest,
    ModelFile,
    Preprocessing,
    TensorSpec,
)
from runtime_bench.verdict import judge, worst

MIB = 2**20
TENSOR = TensorSpec("x", (-1, 3, 4, 4), "NCHW", "float32", None, None)


def model_file(name: str = "slim.int8.onnx", sha256: str = "aa") -> ModelFile:
    stage, precision, file_format = name.split(".")
    return ModelFile(
        name, stage, name, (), file_format, precision, MIB, sha256, TENSOR, TENSOR, None, None
    )


def bundle(budgets: dict[str, float], *files: ModelFile) -> Manifest:
    return Manifest(
        folder=Path("bundle"),
        board=BoardRef("rpi5", "linux", "aarch64", ("dotprod",), 4),
        budgets=budgets,
        model="linear",
        classes=("a", "b"),
        image_shape=(3, 4, 4),
        preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, 1 / 255, "RGB"),
        files=files or (model_file(),),
    )


def measurement(name: str = "slim.int8.onnx", **changes: Any) -> Measurement:
    stage, precision, file_format = name.split(".")
    made = Measurement(
        name=name,
        stage=stage,
        folder="bundle",
        path=name,
        format=file_format,
        precision=precision,
        size_bytes=2 * MIB,
        sha256="aa",
        weight_bytes={"int8": MIB, "int32": MIB // 2},
        activation_bytes=MIB // 4,
        threads=1,
        measured_on="host",
        host_matches_board=False,
        top1=0.89,
        latency_ms={"p50": 4.0, "p90": 5.0, "p99": 6.0},
        peak_rss_bytes=80 * MIB,
        runtime="onnxruntime 1.0",
    )
    return replace(made, **changes)


def only(checks: tuple[Check, ...]) -> Check:
    assert len(checks) == 1
    return checks[0]


@pytest.mark.parametrize(
    ("budget", "value", "unit"),
    [
        ("file_size_mib", 2.0, "MiB"),
        ("weights_mib", 1.5, "MiB"),
        ("activation_memory_mib", 0.25, "MiB"),
        ("accuracy_drop_points", 1.0, "points"),
        ("ram_mib", 0.25, "MiB"),
        ("flash_mib", 2.0, "MiB"),
    ],
)
def test_figures_that_any_host_decides(budget: str, value: float, unit: str) -> None:
    for limit, status in ((value, "pass"), (value * 1.01, "pass"), (value * 0.99, "fail")):
        check = only(verdict([measurement()], bundle({budget: limit}), baseline_top1=0.90))
        assert check.value == pytest.approx(value)
        assert (check.limit, check.unit, check.status) == (limit, unit, status)


@pytest.mark.parametrize(("budget", "value"), [("peak_rss_mib", 80.0), ("latency_p90_ms", 5.0)])
@pytest.mark.parametrize(
    ("measured_on", "matches", "inside", "outside"),
    [
        ("board", False, "pass", "fail"),
        ("board", True, "pass", "fail"),
        ("host", True, "pass", "fail"),
        ("host", False, "unverified", "unverified"),
    ],
)
def test_figures_that_need_the_machine(
    budget: str, value: float, measured_on: str, matches: bool, inside: str, outside: str
) -> None:
    item = measurement(measured_on=measured_on, host_matches_board=matches)
    good = only(verdict([item], bundle({budget: value}), baseline_top1=0.9))
    bad = only(verdict([item], bundle({budget: value * 0.9}), baseline_top1=0.9))
    assert (good.status, bad.status) == (inside, outside)
    assert good.value == value
    notes = {
        ("board", False): "",
        ("board", True): "",
        ("host", True): "measured on a host with the board's architecture and isa",
        ("host", False): "measured on a host unlike rpi5 (aarch64 dotprod); measure on the board",
    }
    assert good.note == bad.note == notes[measured_on, matches]


@pytest.mark.parametrize(
    ("budget", "changes", "note"),
    [
        ("weights_mib", {"weight_bytes": None}, "the manifest gives no weight bytes"),
        ("weights_mib", {"weight_bytes": {}}, "the manifest gives no weight bytes"),
        (
            "activation_memory_mib",
            {"activation_bytes": None},
            "the manifest gives no activation bytes",
        ),
        ("ram_mib", {"activation_bytes": None}, "the manifest gives no activation bytes"),
        (
            "accuracy_drop_points",
            {"top1": None},
            "accuracy was not measured: no samples were given",
        ),
        ("peak_rss_mib", {"peak_rss_bytes": None}, "this system reports no peak RSS"),
        ("latency_p90_ms", {"latency_ms": None}, "no latency was measured"),
        ("latency_p90_ms", {"latency_ms": None, "note": "no runtime"}, "no runtime"),
    ],
)
def test_a_missing_figure_is_never_a_pass(budget: str, changes: dict[str, Any], note: str) -> None:
    item = measurement(measured_on="board", **changes)
    check = only(verdict([item], bundle({budget: 1e9}), baseline_top1=0.9))
    assert (check.status, check.value, check.note) == ("unverified", None, note)


def test_an_unknown_baseline_leaves_accuracy_open() -> None:
    limits = {"accuracy_drop_points": 50.0}
    check = only(verdict([measurement()], bundle(limits), baseline_top1=None))
    assert (check.status, check.note) == ("unverified", "the baseline's top-1 is not known")


def test_a_score_of_the_users_metric_stands_for_top1() -> None:
    limits = bundle({"accuracy_drop_points": 1.0})
    item = measurement(top1=0.89, score=0.5)
    assert only(verdict([item], limits, baseline_top1=0.52)).value == 2.0


@pytest.mark.parametrize("budget", ["activation_memory_mib", "ram_mib"])
@pytest.mark.parametrize(
    ("changes", "value", "note"),
    [
        ({}, 0.25, "liveness lower bound"),
        (
            {"profile": "tflite-micro"},
            0.25,
            "liveness lower bound: the arena was not measured, tflite-micro is not installed",
        ),
        (
            {"arena": {"smallest_bytes": 3 * MIB, "runtime": "tflite-micro 1"}},
            3.0,
            "smallest arena in tflite-micro 1",
        ),
    ],
)
def test_memory_says_what_it_stands_on(
    budget: str, changes: dict[str, Any], value: float, note: str
) -> None:
    check = only(verdict([measurement(**changes)], bundle({budget: 9.0}), baseline_top1=None))
    assert (check.value, check.note) == (value, note)


def test_figures_of_the_file_alone_need_no_note() -> None:
    limits = bundle({"file_size_mib": 9.0, "flash_mib": 9.0, "accuracy_drop_points": 9.0})
    assert [check.note for check in verdict([measurement()], limits, baseline_top1=0.9)] == [""] * 3


def test_a_file_held_to_the_budgets_of_any_board() -> None:
    budgets = {"latency_p90_ms": 1.0, "accuracy_drop_points": 2.0}
    latency, drop = judge(measurement(), budgets, board="a toaster", baseline_top1=0.9)
    assert latency.to_json() == {
        "file": "slim.int8.onnx",
        "budget": "latency_p90_ms",
        "value": 5.0,
        "limit": 1.0,
        "unit": "ms",
        "status": "unverified",
        "note": "measured on a host unlike a toaster; measure on the board",
    }
    assert (drop.value, drop.limit, drop.status) == (1.0, 2.0, "pass")


def test_a_gain_in_accuracy_passes_and_nan_does_not() -> None:
    limits = bundle({"accuracy_drop_points": 0.0})
    assert only(verdict([measurement(top1=0.95)], limits, baseline_top1=0.9)).status == "pass"
    nan = measurement(top1=float("nan"))
    assert only(verdict([nan], limits, baseline_top1=0.9)).status == "fail"


def test_a_drop_of_exactly_the_limit_passes() -> None:
    limits = bundle({"accuracy_drop_points": 1.0})
    for hundredths in range(2, 101):
        item = measurement(top1=(hundredths - 1) / 100)
        check = only(verdict([item], limits, baseline_top1=hundredths / 100))
        assert check.status == "pass", check


def test_unmeasured_and_stale_files_are_unverified() -> None:
    limits = bundle({"file_size_mib": 100.0})
    assert only(verdict([], limits, baseline_top1=0.9)).status == "unverified"
    stale = measurement(sha256="bb")
    assert only(verdict([stale], limits, baseline_top1=0.9)).note == "this file was not measured"


def test_files_of_another_folder_are_not_judged() -> None:
    manifest = bundle({"file_size_mib": 100.0}, model_file())
    items = [measurement(), measurement("baseline.int8.onnx"), measurement("slim.float32.onnx")]
    assert [check.file for check in verdict(items, manifest, baseline_top1=0.9)] == [
        "slim.int8.onnx"
    ]


def test_an_unpruned_network_is_judged_where_it_is_what_goes_to_the_board() -> None:
    manifest = bundle({"file_size_mib": 1.0}, model_file("baseline.int8.onnx"))
    item = measurement("baseline.int8.onnx")
    assert only(verdict([item], manifest, baseline_top1=0.9)).status == "fail"


def test_every_file_meets_every_budget_in_order() -> None:
    manifest = bundle(
        {"latency_p90_ms": 1.0, "file_size_mib": 1.0},
        model_file(),
        model_file("slim.int8.tflite"),
    )
    checks = verdict([measurement()], manifest, baseline_top1=0.9)
    assert [(check.file, check.budget, check.status) for check in checks] == [
        ("slim.int8.onnx", "file_size_mib", "fail"),
        ("slim.int8.onnx", "latency_p90_ms", "unverified"),
        ("slim.int8.tflite", "file_size_mib", "unverified"),
        ("slim.int8.tflite", "latency_p90_ms", "unverified"),
    ]


def test_a_bundle_without_files_passes_nothing() -> None:
    check = only(verdict([], replace(bundle({"file_size_mib": 1.0}), files=()), baseline_top1=0.9))
    note = "the bundle holds no file"
    assert check == Check("", "file_size_mib", None, 1.0, "MiB", "unverified", note)


def check_of(status: str, value: float | None = 1.0, file: str = "f") -> Check:
    return Check(file, "file_size_mib", value, 1.0, "MiB", status)


@pytest.mark.parametrize(
    ("statuses", "aggregate", "lenient", "strict"),
    [
        ([], "pass", 0, 0),
        (["pass", "pass"], "pass", 0, 0),
        (["pass", "unverified"], "unverified", 0, 4),
        (["pass", "fail"], "fail", 1, 1),
        (["unverified", "fail", "pass"], "fail", 1, 1),
    ],
)
def test_the_worst_status_decides(
    statuses: list[str], aggregate: str, lenient: int, strict: int
) -> None:
    checks = [check_of(status) for status in statuses]
    assert overall(checks) == aggregate
    assert exit_code(checks) == lenient
    assert exit_code(checks, require_measured=True) == strict
    assert len(violations(checks)) == statuses.count("fail")


@pytest.mark.parametrize("limit", [4.0, 20.0])
def test_a_cpus_latency_does_not_stand_for_an_accelerators(limit: float) -> None:
    item = measurement(profile="tensorrt", benchable=False, measured_on="board")
    (check,) = verdict([item], bundle({"latency_p90_ms": limit}), baseline_top1=0.9)
    assert (check.value, check.status) == (5.0, "unverified")
    assert check.note == "the bench times CPU cores, not tensorrt; measure it there"
    (floats,) = verdict(
        [measurement(profile=None, benchable=False)],
        bundle({"latency_p90_ms": limit}),
        baseline_top1=0.9,
    )
    assert (
        floats.note == "the bench times CPU cores, not what the board computes on; measure it there"
    )
    (memory,) = verdict([item], bundle({"peak_rss_mib": 100.0}), baseline_top1=0.9)
    assert memory.status == "pass"


def test_the_worst_file_stands_for_a_budget() -> None:
    checks = [check_of("pass", 9.0, "a"), check_of("unverified", None, "b"), check_of("pass")]
    assert [check.file for check in worst(checks)] == ["b"]
    elsewhere = check_of("unverified", 2.0, "measured elsewhere")
    assert worst([checks[0], elsewhere]) == (elsewhere,)
    assert [check.file for check in worst([elsewhere, *checks])] == ["b"]
    checks += [check_of("fail", 2.0, "c"), check_of("fail", 3.0, "d")]
    assert [check.file for check in worst(checks)] == ["d"]
    assert worst([]) == ()


def test_a_check_reads_as_one_line() -> None:
    text = str(Check("f.onnx", "latency_p90_ms", 5.0, 2.0, "ms", "fail", "on the board"))
    assert text == "fail: f.onnx latency_p90_ms 5 ms, limit 2 ms (on the board)"
    open_one = str(check_of("unverified", None))
    assert open_one == "unverified: f file_size_mib not measured, limit 1 MiB"


def test_int8_slower_than_its_own_float_is_warned_of() -> None:
    slow, fast = {"p50": 2.0, "p90": 3.0, "p99": 4.0}, {"p50": 1.0, "p90": 9.0, "p99": 9.0}
    items = [
        measurement("slim.float32.onnx", latency_ms=fast),
        measurement("slim.int8.onnx", latency_ms=slow),
        measurement("slim.float32.tflite", latency_ms=slow),
        measurement("slim.int8.tflite", latency_ms=fast),
        measurement("baseline.int8.onnx", latency_ms=slow),
        measurement("slim.float16.onnx", latency_ms=slow),
        measurement("slim.int8-dynamic.onnx", latency_ms=fast),
    ]
    warning = slower_int8(items)
    assert len(warning) == 1
    assert warning[0].startswith("slim.int8.onnx is slower than slim.float32.onnx: p50 2.000 ms")

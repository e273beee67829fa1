"""Reports and model files from elsewhere, given to gate and report: code 2 and one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gate_reports import artifact, bench_report, device, job_report, write
from html_runs import write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compress_export.cli import main
from compress_export.errors import UsageError
from compress_export.gate import apart
from compress_export.gate.apart import layers_apart
from compress_export.gate.run import Asked, run_gate
from compress_export.gate.why import why_markdown
from compress_export.html_report.page import write_report_to
from runtime_bench import Measurement

Output = pytest.CaptureFixture[str]

ODD = st.sampled_from(
    [None, True, -1, 2**63, 10**400, 1e308, float("nan"), "", "a", "\x1b[2J", "\ud800", "../x",
     "/etc", [], {}, [[1]], [{}], {"a": None}]
)  # fmt: skip


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a JSON tree."""
    if not isinstance(tree, dict | list):
        return []
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    return [(tree, key) for key in keys] + [p for key in keys for p in places(tree[key])]


FULL = job_report(device_measurements=[device("a@b:/c", "2026-01-01")])


@settings(max_examples=150)
@given(report=st.sampled_from([FULL, bench_report()]), place=st.integers(0, 10**6), value=ODD)
def test_no_field_of_a_report_ends_a_gate_otherwise(
    tmp_path_factory: pytest.TempPathFactory, report: dict[str, Any], place: int, value: Any
) -> None:
    from rich.console import Console

    folder = tmp_path_factory.getbasetemp() / "gate"
    old = write(folder, FULL, "old.json")
    changed = copy.deepcopy(report)
    holder, key = places(changed)[place % len(places(changed))]
    holder[key] = value
    path = write(folder, changed)
    with open("/dev/null", "w") as nowhere:  # noqa: PTH123
        try:
            asked = Asked(path, baseline=old, fail_on=("size:2%",), junit=folder / "gate.xml")
            run_gate(asked, Console(file=nowhere))
        except UsageError as error:
            assert "\x1b" not in str(error)


@pytest.mark.parametrize("folder", [".", "..", "../other", "/etc", "rpi4/.."])
def test_a_fleet_stays_in_its_folder(tmp_path: Path, capsys: Output, folder: str) -> None:
    write(tmp_path / "other", job_report())
    write(tmp_path / "fleet", {"fleet": [{"folder": folder}]}, "fleet.json")
    assert main(["gate", str(tmp_path / "fleet")]) == 2
    assert "stay inside the folder" in capsys.readouterr().err


def test_control_characters_do_not_reach_a_terminal(tmp_path: Path, capsys: Output) -> None:
    for report in (
        job_report(artifact(note="\x1b]0;title\x07")),
        job_report(board="\x1b[2J"),
        {**FULL, "device_measurements": [device("a\x1b@b:/c", "2026")]},
    ):
        write(tmp_path, report)
        assert main(["gate", str(tmp_path), "--annotations"]) == 0
        assert not set("\x1b\x07") & set(capsys.readouterr().out)


EVIDENCE_FILES = ("agents.json", "layers.json", "latency.json", "memory.json")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("report.json", "[" * 100_000),
        ("report.json", '{"schema_version": 1}'),
        ("report.json", '{"schema_version": 1, "artifacts": [{"name": 1, "path": {}}]}'),
        *((f"evidence/{name}", "[[[]]]") for name in EVIDENCE_FILES),
        ("evidence/layers.json", json.dumps([{"layer": "a", "channels": 1, "kept": 1}] * 6000)),
        ("bundle/manifest.json", '{"classes": 5}'),
    ],
)
def test_a_page_of_a_strange_folder_is_a_line(
    tmp_path: Path, file: str, content: str, capsys: Output
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / file).write_text(content)
    assert main(["report", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_answers_that_are_no_classes_take_no_memory(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    labels = np.array([0, 10**9])
    answers = {"torch baseline": labels, "slim.int8.onnx": labels}
    np.savez(folder / "evidence" / "answers.npz", labels=labels, **answers)
    with pytest.raises(UsageError, match="no classes"):
        write_report_to(folder, tmp_path / "page.html")


def measured(path: Path) -> Measurement:
    return Measurement(
        path.name, "slim", "", path.name, path.suffix[1:], "int8", path.stat().st_size, "", None,
        None, 1, "host", True,
    )  # fmt: skip


def onnx_with(*nodes: onnx.NodeProto, location: str = "") -> bytes:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    if location:
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    else:
        weight.raw_data = bytes(64)
    graph = helper.make_graph(nodes, "g", [image], [onnx.ValueInfoProto(name="y")], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


LAYER = helper.make_node("MatMul", ["x", "w"], ["y"])


def test_model_files_from_elsewhere_end_in_one_line(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    found = []
    for name, content in (
        ("above.onnx", onnx_with(LAYER, location="../secret.bin")),
        ("bytes.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(range(200))),
    ):
        path = bundle / name
        path.write_bytes(content)
        with pytest.raises(UsageError, match="can't be taken apart") as caught:
            layers_apart(bundle, measured(path))
        found.append(str(caught.value))
    assert all("\n" not in text for text in found)
    link = bundle / "link.onnx"
    link.symlink_to(tmp_path / "secret.bin")
    with pytest.raises(UsageError, match="leads out"):
        layers_apart(bundle, measured(link))


def test_names_of_layers_are_shown_without_their_tricks(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="\x1b[2J|<b>")
    path.write_bytes(onnx_with(node))
    found = layers_apart(tmp_path, measured(path))
    assert [layer.name for layer in found.layers] == ["?[2J|<b>"]
    assert "?[2J\\|&lt;b>" in why_markdown([found], by_time=False)


def test_a_graph_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w2"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("w2", TensorProto.FLOAT, None)],
    )  # fmt: skip
    yes = helper.make_node(
        "Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])
    )
    loop = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    path = tmp_path / "loop.onnx"
    path.write_bytes(onnx_with(yes, loop))
    monkeypatch.setattr(apart, "_MOST_SECONDS", 8.0)
    with pytest.raises(UsageError, match=r"no answer .* within 8 s"):
        layers_apart(tmp_path, measured(path))

"""The shipped descriptors and the JSON Schema beside them."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boards import Board, json_schema, load_board, shipped_boards
from boards.mistakes import find_mistakes
from boards.schema import SCHEMA_FILE, schema_text
from boards.versions import ONNX_RUNTIMES, onnx_support, parse_version

EXPECTED = {
    "coral",
    "esp32s3",
    "jetson",
    "jetson-nano",
    "orin-nano",
    "rpi4",
    "rpi5",
    "stm32f746",
    "stm32h747",
    "x86-64",
    "x86-64-avx2",
}
# What the exporter writes; every board that reads ONNX must read at least this.
WRITTEN_OPSET, WRITTEN_IR = 18, 8
# Oldest onnxruntime with wheels for Python 3.11, where "the oldest" can still be installed.
OLDEST_WITH_WHEELS = (1, 15)
DOCS = Path(__file__).resolve().parents[2] / "docs" / "boards.md"


def raw(board_id: str) -> dict[str, Any]:
    text = resources.files("boards").joinpath(f"{board_id}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def test_all_boards_are_shipped() -> None:
    assert set(shipped_boards()) == EXPECTED


@pytest.mark.parametrize("board_id", sorted(EXPECTED))
def test_shipped_board_loads(board_id: str) -> None:
    board = load_board(board_id)
    assert board.id == board_id
    assert board.sources, "figures need sources"
    assert board.budgets.accuracy_drop_points == 1.0
    assert board.memory.usable_mib <= board.memory.total_mib - board.memory.reserved_mib
    files = {"onnx": "a.onnx", "tflite": "a.tflite"}
    assert "{" not in board.next_command.format(**files)


@pytest.mark.parametrize("board_id", sorted(EXPECTED))
def test_what_the_exporter_writes_is_within_reach(board_id: str) -> None:
    board = load_board(board_id)
    if board.kind == "mcu" or board_id == "coral":
        assert board.formats == ("tflite",)
        assert (board.onnx_opset_max, board.onnx_ir_max) == (None, None)
        return
    assert board.onnx_opset_max is not None and board.onnx_opset_max >= WRITTEN_OPSET
    assert board.onnx_ir_max is not None and board.onnx_ir_max >= WRITTEN_IR
    (version,) = [r.min_version for r in board.runtimes if r.name == "onnxruntime"]
    assert parse_version(version) >= OLDEST_WITH_WHEELS


def test_quantization_rules_of_each_family() -> None:
    x86 = load_board("x86-64").quantization.onnx
    assert x86 is not None
    assert (x86.activation_dtype, x86.activation_symmetric) == ("uint8", False)
    assert (x86.weight_dtype, x86.weight_symmetric, x86.per_channel_conv) == ("int8", True, True)
    without_vnni = load_board("x86-64-avx2").quantization.onnx
    assert without_vnni is not None and without_vnni.reduce_range and not x86.reduce_range
    for name in ("rpi4", "rpi5"):
        rules = load_board(name).quantization.onnx
        assert rules is not None and rules.activation_dtype == "int8"
    for name in ("jetson", "orin-nano"):
        board = load_board(name)
        rules = board.quantization.onnx
        assert rules is not None and rules.profile == "tensorrt"
        assert rules.activation_symmetric and not rules.quantize_bias
        assert "Softmax" in rules.excluded_ops
        assert board.formats == ("onnx", "tflite")
    nano = load_board("jetson-nano")
    assert nano.target_precision == "float16"
    assert nano.quantization.onnx is None and nano.quantization.tflite is None


def test_x86_has_no_latency_budget_and_needs_vnni() -> None:
    board = load_board("x86-64")
    assert board.cpu.isa == ("avx512_vnni",)
    assert set(board.budgets.limits()) == {"file_size_mib", "accuracy_drop_points"}


def test_limits_hold_only_the_budgets_that_are_set() -> None:
    assert load_board("stm32f746").budgets.limits() == {
        "file_size_mib": 0.75,
        "weights_mib": 0.6875,
        "activation_memory_mib": 0.21875,
        "accuracy_drop_points": 1.0,
    }


def test_boards_are_values() -> None:
    board = load_board("rpi5")
    assert board == load_board("pi5")
    with pytest.raises(ValueError, match="frozen"):
        board.id = "other"  # type: ignore[misc]


def test_committed_schema_is_current() -> None:
    committed = resources.files("boards").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    assert committed == schema_text(), "run: python -m boards.schema"
    assert json.loads(committed) == json_schema()


def test_every_key_of_the_schema_is_described() -> None:
    schema = json_schema()
    for section in [schema, *schema["$defs"].values()]:
        assert section["additionalProperties"] is False
        for key, entry in section["properties"].items():
            assert entry.get("description"), f"{section['title']}.{key}"


def test_shipped_boards_satisfy_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    for board_id in shipped_boards():
        validator.validate(raw(board_id))


def test_documentation_names_every_key() -> None:
    text = DOCS.read_text(encoding="utf-8")
    schema = json_schema()
    keys = {key for s in [schema, *schema["$defs"].values()] for key in s["properties"]}
    documented = set(re.findall(r"`(?:[a-z0-9_]+(?:\[\])?\.)*([a-z0-9_]+)`", text))
    assert keys <= documented, sorted(keys - documented)


def test_example_of_the_documentation_loads(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    path = tmp_path / "example.yaml"
    path.write_text(found[1], encoding="utf-8")
    board = load_board(path)
    assert board.budgets.latency_p90_ms == 15
    assert board.onnx_opset_max is None


# Versions ----------------------------------------------------------------------------------------


def test_measured_rows() -> None:
    assert onnx_support("onnxruntime", "1.15.0")[1:] == (19, 9)  # type: ignore[index]
    assert onnx_support("onnxruntime", "1.16.3")[1:] == (19, 9)  # type: ignore[index]
    assert onnx_support("onnxruntime", "1.20.1")[1:] == (21, 10)  # type: ignore[index]
    assert onnx_support("litert", "2.3") is None


def test_version_of_two_digits_sorts_after_one_digit() -> None:
    assert parse_version("1.20") > parse_version("1.9.9")


@pytest.mark.parametrize("text", ["", "1", "1.x", "v1.2", "1.2-rc1"])
def test_odd_versions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        parse_version(text)


@given(
    runtime=st.sampled_from(sorted(ONNX_RUNTIMES)),
    older=st.tuples(st.integers(0, 12), st.integers(0, 40), st.integers(0, 9)),
    newer=st.tuples(st.integers(0, 12), st.integers(0, 40), st.integers(0, 9)),
)
def test_newer_releases_never_read_less(
    runtime: str, older: tuple[int, ...], newer: tuple[int, ...]
) -> None:
    older, newer = sorted((older, newer))
    first = ONNX_RUNTIMES[runtime][0].version
    if older < first:
        with pytest.raises(ValueError, match="older than"):
            onnx_support(runtime, ".".join(map(str, older)))
        return
    low = onnx_support(runtime, ".".join(map(str, older)))
    high = onnx_support(runtime, ".".join(map(str, newer)))
    assert low is not None and high is not None
    assert low.opset_max <= high.opset_max
    assert low.ir_max <= high.ir_max


# The finder of mistakes and the model must agree ------------------------------------------------

junk = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=3,
)


@given(data=st.data())
def test_any_change_is_either_explained_or_accepted(data: st.DataObject) -> None:
    """Replaces one value or adds one key anywhere: mistakes are found exactly if the model refuses,
    and never with a crash."""
    board = raw(data.draw(st.sampled_from(sorted(EXPECTED))))
    section = data.draw(st.sampled_from([board, *(v for v in board.values() if type(v) is dict)]))
    section[data.draw(st.sampled_from(sorted(section)) | st.text(max_size=6))] = data.draw(junk)
    mistakes = find_mistakes(board)
    try:
        Board.model_validate(board)
    except ValueError:
        assert mistakes
    else:
        assert not mistakes

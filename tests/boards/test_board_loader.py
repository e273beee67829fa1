"""Finding a board, and the message for every way a descriptor can be wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from boards import BoardError, load_board, shipped_boards


@pytest.fixture
def valid() -> dict[str, Any]:
    """A complete descriptor of a made-up board, as plain values."""
    return {
        "id": "mine",
        "name": "My board",
        "kind": "linux",
        "cpu": {"arch": "aarch64", "model": "Cortex-A76", "cores": 4, "isa": ["dotprod"]},
        "memory": {"total_mib": 100, "reserved_mib": 20, "usable_mib": 80},
        "storage": {"total_mib": 50, "usable_mib": 40},
        "precisions": ["float32", "int8"],
        "formats": ["onnx", "tflite"],
        "quantization": {
            "onnx": {
                "profile": "onnxruntime",
                "activation_dtype": "int8",
                "activation_symmetric": False,
                "per_channel_conv": True,
                "per_channel_linear": True,
                "quantize_bias": True,
            },
            "tflite": {"per_channel_linear": True},
        },
        "channel_steps": {"float32": 16, "int8": 8},
        "runtimes": [
            {"name": "onnxruntime", "min_version": "1.15.0"},
            {"name": "litert", "min_version": "2.3"},
        ],
        "budgets": {"file_size_mib": 40, "peak_rss_mib": 80},
        "next_command": "run {onnx} {tflite}",
    }


def write(folder: Path, data: Any, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


def message(source: str | Path) -> str:
    with pytest.raises(BoardError) as caught:
        load_board(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


def change(data: dict[str, Any], path: str, value: Any) -> None:
    *sections, key = path.split(".")
    for section in sections:
        data = data[section]
    data[key] = value


# Lookup order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jetson", "jetson.yaml", "jetson.yml", "JETSON", "agx-orin"])
def test_shipped_board_by_id_file_name_and_alias(name: str) -> None:
    assert load_board(name).id == "jetson"


def test_every_alias_finds_its_board_and_no_two_boards_share_a_name() -> None:
    names: list[str] = []
    for board_id in shipped_boards():
        board = load_board(board_id)
        names += [board.id, *board.aliases]
        assert all(load_board(alias) == board for alias in board.aliases)
    assert len(names) == len(set(names))


def test_path_is_read_as_given(tmp_path: Path, valid: dict[str, Any]) -> None:
    path = write(tmp_path, valid)
    assert load_board(path).id == "mine"
    assert load_board(str(path)) == load_board(path)


def test_existing_file_in_the_working_folder_wins_over_a_shipped_board(
    tmp_path: Path, valid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, valid, "jetson.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_board("jetson.yaml").id == "mine"
    assert load_board("jetson").id == "jetson"  # no file of that very name


def test_folder_of_a_shipped_name_does_not_hide_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jetson").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_board("jetson").id == "jetson"


def test_unknown_name_lists_the_boards_and_the_closest() -> None:
    text = message("jetsn")
    assert "'jetsn'" in text
    assert "did you mean jetson?" in text
    assert all(name in text for name in shipped_boards())


def test_missing_path_is_not_looked_up_among_shipped_boards(tmp_path: Path) -> None:
    text = message(tmp_path / "jetson.yaml")
    assert "no such file" in text


# Files that are no descriptor --------------------------------------------------------------------


def test_corrupt_yaml_gives_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path, "id: mine\nname: a: b\n")
    assert "not valid YAML at line 2, column 8" in message(path)


def test_key_written_twice_gives_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, "id: mine\nkind: linux\nid: other\n")
    assert "line 3, column 1: key 'id' is written twice" in message(path)


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "is empty"), ("- a\n", "holds a list"), ("jetson\n", "holds a str")],
)
def test_other_documents_are_refused(tmp_path: Path, text: str, part: str) -> None:
    assert part in message(write(tmp_path, text))


def test_binary_file_and_folder(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_bytes(b"id: \xff\xfe")
    assert "not UTF-8" in message(path)
    assert "is a folder" in message(tmp_path)


def test_python_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "id: !!python/object/apply:os.getcwd []\n")
    assert "not valid YAML at line 1" in message(path)


# Wrong keys, types and units ---------------------------------------------------------------------


def test_unknown_key_suggests_the_closest(tmp_path: Path, valid: dict[str, Any]) -> None:
    valid["budgts"] = {}
    assert message(write(tmp_path, valid)).endswith(
        "mine.yaml: budgts: unknown key; did you mean budgets?"
    )


def test_key_in_another_unit_names_the_allowed_key_and_converts(
    tmp_path: Path, valid: dict[str, Any]
) -> None:
    del valid["memory"]["total_mib"]
    valid["memory"]["total_gb"] = 32
    text = message(write(tmp_path, valid))
    assert "memory.total_gb: unknown key" in text
    assert "total_mib: 30517.6" in text  # 32e9 / 2**20
    assert "missing" not in text  # said once


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("memory.total_mib", "32 GB", "write 30517.6"),
        ("memory.total_mib", "2GiB", "write 2048"),
        ("memory.total_mib", "100", "write 100"),
        ("memory.total_mib", "much", "'much' is not a plain number"),
        ("memory.total_mib", True, "True is not a plain number"),
        ("budgets.latency_p90_ms", "0.5 s", "write 500"),
        ("budgets.latency_p90_ms", "3 GB", "a number in milliseconds"),
        ("cpu.clock_mhz", "2.4 GHz", "write 2400"),
        ("cpu.cores", 2.5, "not a whole number"),
        ("memory.total_mib", float("inf"), "not a finite number"),
        ("memory.total_mib", -1, "greater than 0"),
        ("memory.shared_with_accelerator", "yes", "write true or false"),
        ("name", 5, 'put it in quotes: "5"'),
        ("kind", "windows", "choose 'linux' or 'mcu'"),
        ("formats", "onnx", "write ['onnx']"),
        ("formats", [], "at least one"),
        ("cpu", 3, "not a section"),
        ("id", "My Board", "does not have the form"),
    ],
)
def test_wrong_value_says_what_to_write(
    tmp_path: Path, valid: dict[str, Any], path: str, value: Any, wanted: str
) -> None:
    change(valid, path, value)
    text = message(write(tmp_path, valid))
    assert f"{path}: " in text
    assert wanted in text


def test_unquoted_version_is_explained(tmp_path: Path, valid: dict[str, Any]) -> None:
    text = yaml.safe_dump(valid).replace("'2.3'", "1.20")
    assert "runtimes[1].min_version: 1.2 is a number here; put it in quotes" in message(
        write(tmp_path, text)
    )


def test_missing_key_is_named(tmp_path: Path, valid: dict[str, Any]) -> None:
    del valid["memory"]["usable_mib"]
    assert "memory.usable_mib: missing, a number in MiB" in message(write(tmp_path, valid))


# Contradictions ----------------------------------------------------------------------------------

TENSORRT_RULES = {
    "profile": "tensorrt",
    "activation_dtype": "int8",
    "activation_symmetric": True,
    "per_channel_conv": True,
    "per_channel_linear": True,
    "quantize_bias": False,
    "excluded_ops": ["Softmax"],
}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"memory.usable_mib": 81}, "usable_mib 81 is more than total_mib - reserved_mib = 80"),
        ({"storage.usable_mib": 51}, "usable_mib 51 is more than total_mib 50"),
        (
            {"precisions": ["float32"], "channel_steps": {"float32": 16}},
            "quantization.onnx: INT8 rules are given but precisions lack int8",
        ),
        ({"quantization.onnx": None}, "quantization.onnx: missing"),
        (
            {"runtimes": [{"name": "litert", "min_version": "2.3"}]},
            "onnx is listed but no runtime reads it",
        ),
        (
            {"runtimes": [{"name": "onnxruntime", "min_version": "1.15"}]},
            "tflite is listed but no runtime reads it",
        ),
        ({"kind": "mcu"}, "formats: an mcu has no ONNX runtime"),
        ({"kind": "mcu"}, "cpu.arch: aarch64 does not go with kind mcu"),
        ({"kind": "mcu"}, "budgets.peak_rss_mib: an mcu has no processes"),
        (
            {"quantization.onnx": {**TENSORRT_RULES, "activation_symmetric": False}},
            "wants activation_symmetric true",
        ),
        (
            {"quantization.onnx": {**TENSORRT_RULES, "activation_dtype": "uint8"}},
            "wants activation_dtype int8",
        ),
        (
            {"quantization.onnx": {**TENSORRT_RULES, "per_channel_conv": False}},
            "wants per_channel_conv true",
        ),
        ({"quantization.onnx": {**TENSORRT_RULES, "excluded_ops": []}}, "wants Softmax"),
        ({"quantization.onnx": TENSORRT_RULES}, "tensorrt does not go with runtimes without"),
        (
            {"quantization.onnx.weight_form": "float"},
            "weight_form float is for the tensorrt profile",
        ),
        (
            {"cpu.arch": "x86_64", "cpu.isa": ["avx2"]},
            "reduce_range: must be true where cpu.isa has none of avx512_vnni",
        ),
        ({"budgets.file_size_mib": 41}, "file_size_mib: 41 is more than storage.usable_mib 40"),
        ({"budgets.peak_rss_mib": 81}, "peak_rss_mib: 81 is more than memory.usable_mib 80"),
        ({"channel_steps": {"int8": 8}}, "channel_steps: float32 is missing"),
        (
            {"channel_steps": {"int8": 8, "float32": 8, "float16": 8}},
            "channel_steps: float16 has a step",
        ),
        ({"cpu.isa": ["avx512_vnni"]}, "'avx512_vnni', which aarch64 does not have"),
        ({"next_command": "run {tflit}"}, "unknown placeholder {tflit}"),
        ({"next_command": "run {"}, "next_command: "),
        ({"aliases": ["mine"]}, "'mine' is named twice"),
        (
            {"runtimes": [{"name": "onnxruntime", "min_version": "1.10"}]},
            "onnxruntime 1.10 is older than 1.15",
        ),
        (
            {"accelerator": {"name": "GPU", "precisions": ["float16"]}},
            "float16 is not among the board's precisions",
        ),
        (
            {"accelerator": {"name": "GPU", "precisions": ["int8"], "tops_int8": 4}},
            "go together",
        ),
    ],
)
def test_contradiction_is_refused(
    tmp_path: Path, valid: dict[str, Any], changes: dict[str, Any], wanted: str
) -> None:
    for path, value in changes.items():
        change(valid, path, value)
    assert wanted in message(write(tmp_path, valid))


def test_all_mistakes_come_in_one_message(tmp_path: Path, valid: dict[str, Any]) -> None:
    """Unknown key, wrong unit, wrong type and contradictions, even inside a section that has
    another mistake."""
    valid["colour"] = "green"
    valid["storage"] = {"total_mib": 10, "usable_mib": 20, "spare": 1}
    valid["cpu"]["clock_mhz"] = "2.4 GHz"
    valid["channel_steps"] = {"float32": 16}
    valid["next_command"] = "run {tflit}"
    text = message(write(tmp_path, valid))
    assert "6 mistakes" in text
    for clause in (
        "colour: unknown key",
        "storage.spare: unknown key",
        "storage: usable_mib 20 is more than total_mib 10",
        "cpu.clock_mhz: '2.4 GHz' is not a plain number",
        "channel_steps: int8 is missing",
        "next_command: unknown placeholder",
    ):
        assert text.count(clause) == 1, clause


def test_importing_boards_and_loading_one_stays_light() -> None:
    code = (
        "import sys, boards; boards.load_board('jetson'); "
        "print([m for m in ('torch', 'numpy', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"

"""Many small files timed in one process: every file gets its figure, in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from runtime_bench import BenchError, small_files, time_side_by_side, time_small_files
from runtime_bench.bursts import runtime_name, time_in_bursts


def write_product(path: Path, size: int, dtype: int = TensorProto.FLOAT) -> Path:
    """A file that multiplies a square by itself: (size, size) -> (size, size)."""
    given = helper.make_tensor_value_info("x", dtype, [size, size])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [size, size])
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"])]
    constants = []
    if dtype != TensorProto.FLOAT:
        zero = np.zeros((), helper.tensor_dtype_to_np_dtype(dtype))
        constants = [
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(zero, "zero"),
        ]
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["f"]),
            helper.make_node("MatMul", ["f", "f"], ["y"]),
        ]
    graph = helper.make_graph(nodes, "product", [given], [made], initializer=constants)
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_figures_come_in_the_order_of_the_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(small_files, "_BLOCK_FILES", 2)
    # 4 and 512 wide: a millionfold difference in work needs no quiet machine
    sizes = [4, 512, 4, 512, 4]
    paths = [write_product(tmp_path / f"{n}.onnx", size) for n, size in enumerate(sizes)]
    done: list[int] = []
    found = time_small_files(paths, "onnx", rounds=2, burst_ms=0.5, progress=done.append)
    assert done == [2, 4, 5]
    assert len(found) == 5
    assert all(ms > 0 for ms in found)
    assert max(found[0::2]) < min(found[1::2])


def test_inputs_of_every_type(tmp_path: Path) -> None:
    types = [TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8]
    paths = [write_product(tmp_path / f"{dtype}.onnx", 4, dtype) for dtype in types]
    rounds: list[int] = []
    found = time_in_bursts(paths, "onnx", threads=1, rounds=3, burst_ms=0.1, progress=rounds.append)
    assert [len(bursts) for bursts in found] == [3, 3, 3]  # one a round
    assert rounds == [3, 6, 9]


def test_files_side_by_side_are_compared_round_by_round(tmp_path: Path) -> None:
    paths = [write_product(tmp_path / f"{size}.onnx", size) for size in (512, 4)]
    slow, fast = time_side_by_side(paths, "onnx", threads=1, rounds=4, burst_ms=0.5)
    assert len(slow) == len(fast) == 4
    assert all(0 < burst.median_ms <= burst.p90_ms for burst in (*slow, *fast))
    assert all(a.median_ms > b.median_ms for a, b in zip(slow, fast, strict=True))


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(BenchError, match="onnx layers: "):
        time_small_files([broken], "onnx")


def test_blocks_hold_few_files_and_few_bytes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(small_files, "_BLOCK_FILES", 3)
    monkeypatch.setattr(small_files, "_BLOCK_BYTES", 100)
    paths = []
    for number, size in enumerate([10, 10, 10, 10, 90, 200, 1]):
        path = tmp_path / str(number)
        path.write_bytes(bytes(size))
        paths.append(path)
    blocks = [[path.name for path in block] for block in small_files._blocks(paths)]
    assert blocks == [["0", "1", "2"], ["3", "4"], ["5"], ["6"]]
    assert list(small_files._blocks([])) == []


def test_runtimes_are_named_with_their_version() -> None:
    assert runtime_name("onnx").startswith("onnxruntime 1.")
    assert runtime_name("tflite").split()[0] in ("ai-edge-litert", "tflite-runtime")

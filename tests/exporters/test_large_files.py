"""Large weights stay in their files, and files beyond the limit of protobuf come as two.

The limits are made small here; tests with the true ones would take gigabytes.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exporting import exported
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from boards import load_board
from compress_export.deploy.payload import read_payload
from compress_export.errors import UsageError
from compress_export.exporting import formats_for
from compressor.errors import InputError
from exporters import (
    Exported,
    mapped_weights,
    onnx_file,
    onnx_weights,
    support,
    write_bundle,
    write_sums,
)
from exporters.errors import ExportError, UnsupportedExportError
from exporters.onnx_file import read_model, stored, tensor_array, write_model
from runtime_bench import read_manifest
from runtime_bench.errors import ManifestError
from runtime_bench.verify import sha256_of, verify_files, verify_sums

SHAPE = (3, 8, 8)
BATCH = np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)
LARGE = 256
ABOUT = {
    "resize": 8,
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "scale": 1 / 255,
    "channel_order": "RGB",
}


class Net(nn.Module):
    """Every kind of layer whose weight has an axis of outputs of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.linear = nn.Linear(8, 24)
        self.matrix = nn.Parameter(torch.randn(24, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.up(torch.relu(self.norm(self.conv(x))))).mean((2, 3))
        return torch.relu(self.linear(y)) @ self.matrix


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    net = Net().eval()
    net.norm.running_var.uniform_(0.5, 2)
    return net


def onnx_files(net: nn.Module, folder: Path, board: str, *precisions: str) -> dict[str, Exported]:
    copy = deepcopy(net)  # its weights may lie in files afterwards
    files = exported(copy, folder, BATCH, *precisions, board=load_board(board), formats=("onnx",))
    return {file.precision: file for file in files}


def make_small(patch: pytest.MonkeyPatch, one_file_bytes: int) -> None:
    for module in (mapped_weights, onnx_file, onnx_weights):
        patch.setattr(module, "LARGE_BYTES", LARGE)
    patch.setattr(onnx_file, "ONE_FILE_BYTES", one_file_bytes)


def contents(path: Path) -> Counter[tuple[object, ...]]:
    """Constants by dtype, shape and bytes; names inside a file follow their order."""
    arrays = [numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer]
    return Counter((str(a.dtype), a.shape, a.tobytes()) for a in arrays)


PRECISIONS = ("float32", "float16", "int8", "int8-weights", "int8-dynamic")


@pytest.fixture(scope="module")
def whole(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    onnx_files(net, folder, "x86-64", *PRECISIONS)
    return folder


@dataclass(frozen=True)
class Split:
    """Files made with small limits, and the folder that they lie in."""

    folder: Path
    files: dict[str, Exported]


@pytest.fixture(scope="module", params=[2**31 - 1, 1500], ids=["one file", "side files"])
def split(
    request: pytest.FixtureRequest, net: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> Split:
    folder = tmp_path_factory.mktemp("split")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, one_file_bytes=request.param)
        return Split(folder, onnx_files(net, folder, "x86-64", *PRECISIONS))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_on_disk_give_what_weights_in_memory_give(
    precision: str, whole: Path, split: Split
) -> None:
    name = split.files[precision].path
    assert contents(split.folder / name) == contents(whole / name)
    there, here = (onnx.load(str(place / name)).graph.node for place in (whole, split.folder))
    assert [node.op_type for node in there] == [node.op_type for node in here]


def test_nothing_else_is_left_in_the_folder(split: Split) -> None:
    named = {name for file in split.files.values() for name in file.paths}
    assert {path.name for path in split.folder.iterdir()} == named


def test_tensorrt_files_with_float_weights_in_memory_or_on_disk(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    file = onnx_files(net, tmp_path, "jetson", "int8")["int8"]
    make_small(monkeypatch, one_file_bytes=2**31 - 1)
    onnx_files(net, tmp_path / "small", "jetson", "int8")
    assert contents(tmp_path / file.path) == contents(tmp_path / "small" / file.path)


@pytest.fixture
def bundle(net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_small(monkeypatch, one_file_bytes=1500)
    folder = tmp_path / "bundle"
    files = onnx_files(net, folder, "x86-64", "float32")
    about = {"model": "any", "classes": list("abcd"), "input_shape": SHAPE, "preprocessing": ABOUT}
    write_bundle(folder, tuple(files.values()), board=load_board("x86-64"), **about)
    write_sums(folder)
    return folder


def test_side_files_count_and_are_copied_and_checked(bundle: Path) -> None:
    main, side = bundle / "slim.float32.onnx", bundle / "slim.float32.onnx.data"
    file = read_manifest(bundle).files[0]
    assert file.size_bytes == main.stat().st_size + side.stat().st_size
    assert [(s.path, s.sha256) for s in file.side_files] == [(side.name, sha256_of(side))]
    assert side.name in {sent.name for sent in read_payload(bundle).files}
    onnxruntime.InferenceSession(str(main), providers=["CPUExecutionProvider"])
    verify_files(read_manifest(bundle))
    content = bytearray(side.read_bytes())
    content[-1] ^= 1
    side.write_bytes(content)
    with pytest.raises(ManifestError, match="slim.float32.onnx.data has sha256"):
        verify_files(read_manifest(bundle))
    with pytest.raises(ManifestError, match="slim.float32.onnx.data has another sha256"):
        verify_sums(bundle)
    with pytest.raises(UsageError, match="slim.float32.onnx.data was altered"):
        read_payload(bundle)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=5),
    limit=st.sampled_from([1000, 2**31 - 1]),
    rounds=st.integers(1, 2),
)
def test_reading_and_writing_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int, rounds: int
) -> None:
    values = [np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in sizes]
    values.append(np.arange(300, dtype=np.int64))
    tensors = [numpy_helper.from_array(value, f"w{n}") for n, value in enumerate(values)]
    nodes = [helper.make_node("Identity", [t.name], [f"y{t.name}"]) for t in tensors]
    outputs = [
        helper.make_tensor_value_info(f"y{t.name}", t.data_type, list(t.dims)) for t in tensors
    ]
    graph = helper.make_graph(nodes, "constants", [], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    path = tmp_path_factory.mktemp("files") / "model.onnx"
    onnx.save(model, str(path))
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, one_file_bytes=limit)
        for _ in range(rounds):
            write_model(read_model(path), path)
        found = {tensor.name: tensor_array(tensor) for tensor in read_model(path).graph.initializer}
    read = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}
    for tensor, value in zip(tensors, values, strict=True):
        np.testing.assert_array_equal(found[tensor.name], value)
        np.testing.assert_array_equal(read[tensor.name], value)
    onnx.checker.check_model(str(path), full_check=True)
    assert (path.parent / "model.onnx.data").exists() == (limit == 1000)


def test_smaller_models_leave_no_side_file_of_larger_ones(bundle: Path) -> None:
    path = bundle / "slim.float32.onnx"
    model = read_model(path)
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    model.graph.node.append(helper.make_node("Identity", ["input"], ["y"]))
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    model.graph.output[0].CopyFrom(model.graph.input[0])
    model.graph.output[0].name = "y"
    write_model(model, path)
    assert not path.with_name(f"{path.name}.data").exists()


@pytest.mark.parametrize("location", ["../weights", "/etc/hostname", "link"])
def test_weights_outside_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(8))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "weights")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="outside"):
        read_model(folder / "m.onnx")


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_files_cut_off_are_refused(whole: Path, tmp_path: Path, share: float) -> None:
    content = (whole / "slim.float32.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ExportError, match="cut off|no number"):
        read_model(path)


def test_graphs_are_read_without_their_weights(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, one_file_bytes=2**31 - 1)
    model = read_model(whole / "slim.float32.onnx")
    large = [tensor for tensor in model.graph.initializer if stored(tensor) is not None]
    assert len(large) >= 4
    assert all(isinstance(tensor_array(tensor), np.memmap) for tensor in large)
    assert model.ByteSize() < (whole / "slim.float32.onnx").stat().st_size / 2


def test_tflite_has_a_limit(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "TFLITE_BYTES", 1000)
    with pytest.raises(UnsupportedExportError, match="holds 2 GiB at most"):
        exported(net, tmp_path, BATCH, "int8")
    said: list[str] = []
    assert formats_for(net, ("onnx", "tflite"), said.append) == ("onnx",)
    assert len(said) == 1 and "2 GiB" in said[0] and "\n" not in said[0]
    with pytest.raises(InputError, match="--formats tflite"):
        formats_for(net, ("tflite",), said.append)


def test_export_leaves_the_network_as_it_was(net: nn.Module, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in net.parameters()]
    onnx_files(net, tmp_path, "x86-64", "float32")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [parameter.requires_grad for parameter in net.parameters()] == wanted

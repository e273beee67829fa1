"""Networks with several outputs and dense prediction through both exporters and runners."""

from __future__ import annotations

import copy
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boards import load_board
from exporters import Calibration, Exported, UnsupportedExportError, export_files, write_manifest
from exporters.model_outputs import flatten_outputs
from runtime_bench import measure_folder, read_manifest
from runtime_bench.runtimes import load_runner

SIZE, CLASSES = 16, 3
SHAPE = (3, SIZE, SIZE)
PREPROCESSING = {"resize": SIZE, "mean": [0.5], "std": [0.25], "scale": 1 / 255}


class UNet(nn.Module):
    """Down, up, a concatenation; a map of classes, its coarse form, and one vector per image."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.fuse = nn.Sequential(nn.Conv2d(16, 8, 3, 1, 1), nn.ReLU())
        self.coarse = nn.Conv2d(16, CLASSES, 1)
        self.fine = nn.Conv2d(8, CLASSES, 1)
        self.vector = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        down = self.down(x)  # [N, 8, S/2, S/2]
        deep = self.deep(down)  # [N, 16, S/4, S/4]
        fused = self.fuse(torch.cat([self.up(deep), down], 1))
        fine = F.interpolate(self.fine(fused), scale_factor=2.0, mode="nearest")
        return {
            "out": fine,  # [N, classes, S, S]
            "aux": self.coarse(deep),  # [N, classes, S/4, S/4]
            "vector": self.vector(deep.mean((2, 3))),
        }


def images(count: int, seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).standard_normal((count, 3, 4, 4)).astype(np.float32)
    return np.ascontiguousarray(blocks.repeat(4, 2).repeat(4, 3))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(1)
    return UNet().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, unet):
    path = tmp_path_factory.mktemp("unet")
    board = load_board("x86-64")
    files = export_files(
        unet,
        stage="slim",
        folder=path,
        input_shape=SHAPE,
        calibration=Calibration(lambda: iter([images(16, 0)])),
        validation=lambda: iter([images(4, 1), images(3, 2)]),
        board=board,
        formats=("onnx", "tflite"),
        precisions=("float32", "int8"),
        progress=lambda text: None,
    )
    write_manifest(
        path,
        files,
        board=board,
        model="unet",
        classes=["a", "b", "c"],
        input_shape=SHAPE,
        preprocessing={**PREPROCESSING, "channel_order": "RGB"},
    )
    return path, files


def test_outputs_keep_their_names_order_and_shapes(folder):
    _, files = folder
    for file in files:
        names = [file.output.name, *(output.name for output in file.more_outputs)]
        assert names == ["out", "aux", "vector"]
        shapes = [file.output.shape[1:], *(output.shape[1:] for output in file.more_outputs)]
        assert shapes == [(CLASSES, SIZE, SIZE), (CLASSES, SIZE // 4, SIZE // 4), (5,)]
        quantized = (file.format, file.precision) == ("tflite", "int8")
        assert all((o.scale is not None) == quantized for o in (file.output, *file.more_outputs))
        assert Exported.from_json(file.to_json()) == file


def test_runners_of_the_bench_give_what_torch_gives(folder, unet):
    path, files = folder
    x = images(2, 5)
    with torch.no_grad():
        wanted = unet(torch.from_numpy(x))["out"].flatten(1).numpy()
    for file in read_manifest(path).files:
        runner = load_runner(path / file.path, file, threads=1)
        found = np.concatenate([runner.run(x[:1]), runner.run(x[1:])])
        allowed = 1e-4 if file.precision == "float32" else 0.1
        assert np.abs(found - wanted).max() <= allowed * np.abs(wanted).max(), file.name
    assert all(file.agreement_validation > 0.9 for file in files)
    assert all(file.float_layers == () for file in files)


def test_the_bench_times_such_files(folder):
    path, files = folder
    measured = measure_folder(path, runs=3, warmup=1)
    assert [m.name for m in measured] == [file.name for file in files]
    assert all(m.latency_ms is not None and m.top1 is None for m in measured)


Pair = namedtuple("Pair", ["boxes", "scores"])


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (lambda x: x, ("logits",)),
        (lambda x: (x, x + 1), ("output_0", "output_1")),
        (lambda x: [x, (x + 1, x + 2)], ("output_0", "output_1_0", "output_1_1")),
        (lambda x: Pair(x, -x), ("boxes", "scores")),
        (lambda x: {"a.b": x, "none": None, 3: (-x, x)}, ("a_b", "3_0")),
    ],
)
def test_names_of_containers(made, names):
    class Net(nn.Module):
        def forward(self, x: torch.Tensor):
            return made(x)

    model = Net().eval()
    assert flatten_outputs(model, SHAPE) == names
    outputs = model(torch.zeros(1, *SHAPE))
    assert len(outputs if isinstance(outputs, tuple) else [outputs]) == len(names)


def test_a_copy_returns_what_the_copy_computes(unet):
    model = copy.deepcopy(unet)
    flatten_outputs(model, SHAPE)
    changed = copy.deepcopy(model)
    nn.init.constant_(changed.vector.bias, 1e3)
    x = torch.zeros(1, *SHAPE)
    assert changed(x)[2].min() > 900 > model(x)[2].max()


def test_what_is_no_tensor_is_refused():
    class Net(nn.Module):
        def forward(self, x: torch.Tensor):
            return {"out": x, "text": 1.5}

    with pytest.raises(UnsupportedExportError, match="returns a float"):
        flatten_outputs(Net().eval(), SHAPE)

"""A branch that lost all its channels is an added constant, in the exported files too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import two_blocks
from torch import nn

from boards import load_board
from compressor.graph import channel_graph
from compressor.placeholders import Constant
from compressor.slim import slim
from compressor.verify import check_slim
from exporters import Calibration, export_files


def without_a_branch() -> tuple[nn.Module, torch.Tensor]:
    """The tiny network with the first block's branch gone, statistics randomized; images."""
    torch.manual_seed(1)
    model = two_blocks(10).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low in ((norm.weight, 0.5), (norm.bias, -1.0), (norm.running_mean, -1.0)):
                tensor.data.uniform_(low, 1.5)
            norm.running_var.uniform_(0.5, 2.0)
    graph = channel_graph(model, torch.zeros(1, 3, 8, 8))
    (branch,) = [group for group in graph.groups if group.name == "blocks.0.conv1"]
    keep = graph.all_kept()
    keep[branch.classes] = False
    slimmed = slim(model, graph, keep)
    images = torch.randn(16, 3, 8, 8)
    assert check_slim(model, graph, keep, slimmed, images) <= 1e-9  # float32 constants are allowed
    return slimmed, images


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_files_agree_with_torch(tmp_path: Path, kind: str) -> None:
    model, images = without_a_branch()
    constants = [m for m in model.modules() if isinstance(m, Constant)]
    assert [c.full_size for c in constants] == [True]  # `y += shortcut` needs the whole plane
    (file,) = export_files(
        model,
        stage="slim",
        folder=tmp_path,
        input_shape=(3, 8, 8),
        calibration=Calibration(lambda: iter([images.numpy()])),
        validation=lambda: iter([images.numpy()]),
        board=load_board("jetson"),
        formats=[kind],
        precisions=["float32"],
        progress=lambda line: None,
    )
    assert file.agreement_validation == 1.0
    assert [c.full_size for c in constants] == [True]  # the caller's network stays as it was
    with torch.no_grad():
        expected = model(images[:1]).numpy()
    assert np.abs(run(tmp_path / file.path, images[:1].numpy()) - expected).max() < 1e-4


def run(path: Path, image: np.ndarray) -> np.ndarray:
    """Logits (1, classes) of one image (1, C, H, W)."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

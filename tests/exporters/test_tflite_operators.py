"""Operators by themselves: run one after the other they answer as the whole file does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from boards import load_board
from exporters import Calibration, export_files
from exporters.inspect_tflite import TfliteGraph
from exporters.tflite_operators import operator_groups, write_operators


@pytest.fixture(scope="module", params=["int8", "float16", "float32"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    images = np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32)
    folder = tmp_path_factory.mktemp("operators")
    (file,) = export_files(
        network.eval(),
        stage="slim",
        folder=folder,
        input_shape=(3, 16, 16),
        calibration=Calibration(lambda: [images]),
        board=load_board("x86-64"),
        validation=lambda: [images],
        formats=("tflite",),
        precisions=(request.param,),
        progress=lambda _: None,
    )
    return folder / file.path


def run(path: Path, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a file for inputs by name."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    for spec in interpreter.get_input_details():
        interpreter.set_tensor(spec["index"], known[spec["name"]])
    interpreter.invoke()
    return {s["name"]: interpreter.get_tensor(s["index"]) for s in interpreter.get_output_details()}


def test_operators_in_a_row_answer_as_the_file(exported: Path, tmp_path: Path) -> None:
    graph = TfliteGraph(exported)
    source, result = (
        graph.tensors[int(i[0])] for i in (graph.subgraph.inputs, graph.subgraph.outputs)
    )
    noise = np.random.default_rng(1).integers(-100, 100, source.shape)
    image = {source.name.decode(): noise.astype(graph.dtype(int(graph.subgraph.inputs[0])))}
    known = dict(image)
    for path in write_operators(graph, tmp_path):
        known |= run(path, known)
    name = result.name.decode()
    np.testing.assert_allclose(known[name], run(exported, image)[name], rtol=1e-5)


def test_every_operator_is_in_one_group(exported: Path) -> None:
    graph = TfliteGraph(exported)
    found = [id(op) for group in operator_groups(graph) for op in (*group.before, group.operator)]
    assert sorted(found) == sorted(id(operator) for operator in graph.operators)

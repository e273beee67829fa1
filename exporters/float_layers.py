"""Layers that stay float in files of integers, found by their names in either format."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.errors import UnsupportedExportError
from exporters.inspect_tflite import WEIGHTED, TfliteGraph
from exporters.onnx_qdq import ACTIVATIONS, Graph
from exporters.onnx_tidy import LAYERS
from exporters.tflite_recipes import CONVOLUTIONS, LINEAR

if TYPE_CHECKING:
    import onnx


def named_nodes(model: onnx.ModelProto, layers: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the convolutions and linear layers of these names.

    Raises:
        UnsupportedExportError: there is no such layer.
    """
    found = {node.name: node for node in model.graph.node if node.op_type in LAYERS}
    _refuse_strange(layers, found)
    return [found[name] for name in layers]


def with_activations(model: onnx.ModelProto, layers: Sequence[str]) -> list[str]:
    """Return the names of the layers and of the activations that files compute with them.

    An activation that stayed on integers would have its layer's answer rounded twice.

    Raises:
        UnsupportedExportError: there is no such layer.
    """
    graph, names = Graph(model), []
    for node in named_nodes(model, layers):
        names.append(node.name)
        reader = graph.sole_consumer(node.output[0])
        if reader is not None and reader.op_type in ACTIVATIONS:
            names.append(reader.name)
    return names


def float_recipe(path: Path, layers: Sequence[str]) -> list[dict[str, Any]]:
    """Return what ai-edge-quantizer has to be told last for layers of a float TFLite file.

    Raises:
        UnsupportedExportError: there is no such layer.
    """
    if not layers:
        return []
    graph = TfliteGraph(path)
    answers: dict[str, list[str]] = {}
    for operator in graph.operators:
        if graph.op_name(operator) in WEIGHTED:
            layer = graph.tensors[int(operator.inputs[1])].name.decode().partition(":")[0]
            result = graph.tensors[int(operator.outputs[0])].name.decode()
            answers.setdefault(layer, []).append(result)
    _refuse_strange(layers, answers)
    names = [name for layer in layers for name in answers[layer]]
    # Not the graph's own output, which may be a layer's.
    return _untouched(names, (*CONVOLUTIONS, *LINEAR))


def quotient_recipe(path: Path) -> list[dict[str, Any]]:
    """Return what ai-edge-quantizer has to be told of quotients in a float TFLite file.

    A small divisor rounds to zero in 8 bits, and LiteRT's integer kernel stops there. What is added
    to a divisor to keep it from zero (linear attention) has to be added in float as well.
    """
    graph = TfliteGraph(path)
    producer = {int(index): operator for operator in graph.operators for index in operator.outputs}
    kept = []
    for operator in graph.operators:
        if graph.op_name(operator) == "DIV":
            divisor = producer.get(int(operator.inputs[1]))
            kept.append(operator)
            if divisor is not None and graph.op_name(divisor) == "ADD":
                kept.append(divisor)
    names = [graph.tensors[int(operator.outputs[0])].name.decode() for operator in kept]
    return _untouched(names, ("DIV", "ADD")) if names else []


def _untouched(results: Iterable[str], operations: Iterable[str]) -> list[dict[str, Any]]:
    """The entries for operators by what their results are called."""
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    manager = recipe_manager.RecipeManager()
    pattern = f"^(?:{'|'.join(re.escape(name) for name in results)});"
    for name in operations:
        operation = qtyping.TFLOperationName[name]
        no = quantizer.AlgorithmName.NO_QUANTIZE
        manager.add_quantization_config(pattern, operation, algorithm_key=no)
    recipe: list[dict[str, Any]] = manager.get_quantization_recipe()
    return recipe


def _refuse_strange(layers: Iterable[str], known: Collection[str]) -> None:
    for name in layers:
        if name not in known:
            raise UnsupportedExportError(
                f"no layer {name!r} to leave in float; the layers are {', '.join(known)}"
            )

"""Small rewrites of a float ONNX graph that keep its meaning."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import count
from string import digits
from typing import TYPE_CHECKING

import numpy as np

from exporters.onnx_file import tensor_array, with_weights, without_weights

if TYPE_CHECKING:
    import onnx

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Convolutions and linear layers; the weight is their second input."""


def strip_domains(model: onnx.ModelProto) -> None:
    """Drop the operator sets that no node uses, functions included."""
    used = {node.domain for node in model.graph.node} | {""}
    for index in reversed(range(len(model.opset_import))):
        if model.opset_import[index].domain not in used:
            del model.opset_import[index]
    del model.functions[:]


def weights_of_layers(model: onnx.ModelProto) -> dict[str, str]:
    """Return the names of nodes of layers -> those of their weights."""
    return {node.name: node.input[1] for node in model.graph.node if node.op_type in LAYERS}


def name_weights_as(model: onnx.ModelProto, weights: Mapping[str, str]) -> None:
    """Give weights the names again that they had before the graph was simplified, in place.

    A factor behind a layer is multiplied into its weight, which then is another constant.

    Args:
        weights: as `weights_of_layers` returned them.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    for node in model.graph.node:
        wanted = weights.get(node.name, "")
        if node.op_type in LAYERS and wanted and wanted not in constants:
            weight = constants.get(node.input[1])
            readers = [n for n in model.graph.node if node.input[1] in n.input]
            if weight is not None and len(readers) == 1:
                weight.name = node.input[1] = wanted
                constants[wanted] = weight


def name_transposed_weights(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Give the weights of linear layers on tokens their names in torch, in place.

    torch.onnx writes such a layer as a product with the weight's transpose, [inputs, outputs],
    which it computes beforehand and numbers. The name says which layer it is (`name_layers`).

    Args:
        weights: name in torch -> [outputs, inputs].
    """
    taken = {constant.name for constant in model.graph.initializer}
    missing = {name: weight for name, weight in weights.items() if name not in taken}
    factors = {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    renamed: dict[str, str] = {}
    for constant in model.graph.initializer:
        if constant.name in factors and constant.name not in weights:
            same = (name for name, weight in missing.items() if _is_transpose(constant, weight))
            if (name := next(same, None)) is not None:
                renamed[constant.name] = constant.name = name
                del missing[name]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


def _is_transpose(constant: onnx.TensorProto, weight: np.ndarray) -> bool:
    if list(constant.dims) != list(weight.shape[::-1]):
        return False
    values = tensor_array(constant).T
    # Most differ from the first row on; large ones lie in files.
    return np.array_equal(values[:1], weight[:1]) and np.array_equal(values, weight)


def name_layers(model: onnx.ModelProto) -> None:
    """Name convolutions and linear layers after their weight (layer1.0.conv1), others by place.

    torch.onnx numbers nodes by the order of tracing, so its names change with every edit.
    """
    constants = {constant.name for constant in model.graph.initializer}
    taken: dict[str, int] = {}
    for node in model.graph.node:
        weight = next((name for name in node.input[1:2] if name in constants), "")
        layer = weight.removesuffix(".weight")
        name = layer if node.op_type in LAYERS and layer else node.op_type
        taken[name] = taken.get(name, 0) + 1
        node.name = name if name == layer and taken[name] == 1 else f"{name}_{taken[name]}"


def pool_means(model: onnx.ModelProto) -> None:
    """Turn a mean over height and width into GlobalAveragePool, which runs on integers.

    ReduceMean(x[N, C, H, W], axes=(2, 3)) -> GlobalAveragePool [N, C, 1, 1] (-> Flatten [N, C]).
    """
    from onnx import helper

    ranks = tensor_ranks(model)
    constants = constant_arrays(model)
    nodes = []
    for node in model.graph.node:
        if (
            node.op_type != "ReduceMean"
            or ranks.get(node.input[0]) != 4
            or _reduced_axes(node, constants) != [2, 3]
        ):
            nodes.append(node)
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        output, keep = node.output[0], attributes.get("keepdims", 1)
        pooled = output if keep else f"{output}_pooled"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled]))
        if not keep:
            nodes.append(helper.make_node("Flatten", [pooled], [output], axis=1))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_constants(model)


def tensor_ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Number of dimensions of every activation that shape inference knows."""
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(model).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }


def _reduced_axes(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> list[int]:
    """Axes of a reduction of a rank-4 tensor, in order; from opset 18 on they are an input."""
    if len(node.input) > 1 and node.input[1] in constants:
        return sorted(int(axis) % 4 for axis in constants[node.input[1]].ravel())
    return sorted(axis % 4 for a in node.attribute if a.name == "axes" for axis in a.ints)


def plain_reshapes(model: onnx.ModelProto) -> None:
    """Drop `allowzero`, unknown to older opsets and TensorRT, where no size is 0 anyway."""
    constants = constant_arrays(model)
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = constants[node.input[1]]
            for attribute in list(node.attribute):
                if attribute.name == "allowzero" and shape.all():
                    node.attribute.remove(attribute)


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in a newer opset, and in the IR version that came with it.

    Raises:
        RuntimeError: onnx's converter lacks a step.
    """
    import onnx

    raised = _converted(model, opset)
    versions = onnx.helper.OP_SET_ID_VERSION_MAP
    raised.ir_version = max(model.ir_version, versions[("ai.onnx", opset)])
    return raised


def lower_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in an older opset.

    onnx's converter lacks steps down for Pad, Split and others, mostly because the newer schema
    has an optional part. So where it gives up, optional parts that say nothing are dropped, and
    the checker decides whether the older schemas are satisfied.

    Raises:
        onnx.checker.ValidationError: the graph uses something the older opset doesn't have.
    """
    import onnx

    try:
        return _converted(model, opset)
    except RuntimeError:
        lowered = onnx.ModelProto()
        lowered.CopyFrom(model)
    constants = constant_arrays(lowered)
    for node in lowered.graph.node:
        _fit_schema(node, opset, constants)
    for entry in lowered.opset_import:
        if entry.domain == "":
            entry.version = opset
    drop_unused_constants(lowered)
    onnx.checker.check_model(without_weights(lowered), full_check=True)
    return lowered


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """onnx's own conversion, which forgets external data."""
    from onnx import version_converter

    return with_weights(version_converter.convert_version(without_weights(model), opset), model)


def _fit_schema(node: onnx.NodeProto, opset: int, constants: dict[str, np.ndarray]) -> None:
    """Drop attributes at their default that `opset` doesn't know; reduction axes as attribute."""
    from onnx import defs, helper

    old = defs.get_schema(node.op_type, opset, "")
    new = defs.get_schema(node.op_type, "")
    if "axes" in old.attributes and len(node.input) == 2 and node.input[1] in constants:
        node.attribute.append(helper.make_attribute("axes", constants[node.input[1]].tolist()))
        del node.input[1]
    for attribute in list(node.attribute):
        if attribute.name in old.attributes or attribute.name not in new.attributes:
            continue
        default = new.attributes[attribute.name].default_value
        if helper.get_attribute_value(attribute) == helper.get_attribute_value(default):
            node.attribute.remove(attribute)


def compact(model: onnx.ModelProto) -> None:
    """Shrink what surrounds the weights: equal small constants merged, short names inside.

    Layers (`LAYERS`) keep their names and so do the graph's input and output.
    """
    graph = model.graph
    drop_unused_constants(model)
    del graph.value_info[:]
    renamed = _merged_constants(model)
    keep = _ends(model) | {""}
    fresh = _names("t", keep)
    for node in graph.node:
        for name in node.output:
            if name not in keep:
                renamed[name] = next(fresh)
        if node.op_type not in LAYERS:
            node.name = ""
    for constant in graph.initializer:
        constant.name = renamed[constant.name]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def _merged_constants(model: onnx.ModelProto) -> dict[str, str]:
    """Drop repeated scalars (scales, zero points); new names of all constants by old name."""
    renamed: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    constants, fresh = model.graph.initializer, _names("c", _ends(model))
    for index in reversed(range(len(constants))):
        name, constants[index].name = constants[index].name, ""
        content = constants[index].SerializeToString()
        if content in seen:
            renamed[name] = seen[content]
            del constants[index]
            continue
        seen[content] = renamed[name] = next(fresh)
        constants[index].name = name
    return renamed


def _ends(model: onnx.ModelProto) -> set[str]:
    return {value.name for value in (*model.graph.input, *model.graph.output)}


def _names(letter: str, taken: Collection[str]) -> Iterator[str]:
    """The letter with every number, without the names that are taken."""
    return (name for name in map(f"{letter}{{}}".format, count()) if name not in taken)


def drop_unused_constants(model: onnx.ModelProto) -> None:
    """Remove initializers that no node reads."""
    read = {name for node in model.graph.node for name in node.input}
    read |= {output.name for output in model.graph.output}
    for index in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[index].name not in read:
            del model.graph.initializer[index]


def constant_arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initializers and Constant nodes by name."""
    from onnx import numpy_helper

    arrays = {c.name: tensor_array(c) for c in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return arrays


def rename_ambiguous_constants(model: onnx.ModelProto) -> None:
    """Rename constants whose name and a number is another tensor's name, in place.

    onnxruntime's quantizer gives every layer its own copy of a bias that several share, and calls
    the copies by its name and a number; it doesn't look whether val_12's ninth copy is val_129.
    """
    tensors = {name for node in model.graph.node for name in (*node.input, *node.output)}
    stems = {name[:end] for name in tensors for end in range(len(name.rstrip(digits)), len(name))}
    renamed = {c.name: f"{c.name}_shared" for c in model.graph.initializer if c.name in stems}
    for constant in model.graph.initializer:
        constant.name = renamed.get(constant.name, constant.name)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)

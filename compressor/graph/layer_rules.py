"""What convolutions and linear layers do to channel labels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from compressor.graph.channel_graph import Geometry
from compressor.graph.interpreter import LabelInterpreter
from compressor.graph.labels import FIXED, along_axis, varying_axes
from compressor.graph.recorder import LayerRecord

_Transposed = nn.modules.conv._ConvTransposeNd
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def convolution(run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor) -> Any:
    """Dense: fresh labels. Depthwise: labels pass. Grouped: partners of all groups are tied."""
    (labels,) = run.input_labels(node)
    name, before = str(node.target), run.shape(node.all_input_nodes[0])
    if obstacle := _obstacle(labels, 1, module):
        return _fixed(run, node, module, result, obstacle)
    inputs = labels.reshape(-1).expand(module.in_channels)
    if _is_depthwise(module):
        outputs = inputs.repeat_interleave(module.out_channels // module.in_channels)
    elif module.groups == 1:
        run.recorder.consume(name, 1, inputs)
        run.recorder.slice_axis(name, "weight", 1, inputs)
        outputs = _outputs_of(run, name, module.out_channels)
    else:
        outputs = _grouped_outputs(run, name, module, inputs)
    run.recorder.slice_axis(name, "weight", 0, outputs)
    slice_vector(run, name, module, "bias", outputs)
    run.recorder.add_layer(_record(name, module, before, result.shape, inputs, outputs))
    return along_axis(outputs, 1, result.dim())


def transposed_convolution(
    run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor
) -> Any:
    """The same with the axes of the weight swapped; grouped ones are not cut."""
    (labels,) = run.input_labels(node)
    name, before = str(node.target), run.shape(node.all_input_nodes[0])
    if obstacle := _obstacle(labels, 1, module):
        return _fixed(run, node, module, result, obstacle)
    inputs = labels.reshape(-1).expand(module.in_channels)
    if module.groups == 1:
        outputs = _outputs_of(run, name, module.out_channels)
        run.recorder.consume(name, 1, inputs)
        run.recorder.slice_axis(name, "weight", 1, outputs)
    elif _is_depthwise(module):
        outputs = inputs.repeat_interleave(module.out_channels // module.in_channels)
    else:
        return _fixed(run, node, module, result, "a grouped transposed convolution")
    run.recorder.slice_axis(name, "weight", 0, inputs)
    slice_vector(run, name, module, "bias", outputs)
    run.recorder.add_layer(_record(name, module, before, result.shape, inputs, outputs))
    return along_axis(outputs, 1, result.dim())


def linear(run: LabelInterpreter, node: fx.Node, module: nn.Linear, result: Tensor) -> Any:
    """Fresh labels along the last axis."""
    (labels,) = run.input_labels(node)
    name, before = str(node.target), run.shape(node.all_input_nodes[0])
    if obstacle := _obstacle(labels, labels.dim() - 1, module):
        return _fixed(run, node, module, result, obstacle)
    inputs = labels.reshape(-1).expand(module.in_features)
    outputs = _outputs_of(run, name, module.out_features)
    run.recorder.consume(name, -1, inputs)
    run.recorder.slice_axis(name, "weight", 1, inputs)
    run.recorder.slice_axis(name, "weight", 0, outputs)
    slice_vector(run, name, module, "bias", outputs)
    run.recorder.add_layer(_record(name, module, before, result.shape, inputs, outputs))
    return along_axis(outputs, result.dim() - 1, result.dim())


def _obstacle(labels: Any, axis: int, module: nn.Module) -> str | None:
    """Return why a layer that reads channels along an axis can't be cut; None where it can."""
    if varying_axes(labels) not in ([], [axis]):
        return "its input mixes channels and positions"
    if "weight" not in module._parameters:
        return "its weight is made anew at each call"
    return None


def fixed_layer(
    run: LabelInterpreter, name: str, module: Any, before: torch.Size, after: torch.Size
) -> None:
    """Note a layer of which nothing can go: it costs all the same."""
    is_linear = isinstance(module, nn.Linear)
    ins = module.in_features if is_linear else module.in_channels
    outs = module.out_features if is_linear else module.out_channels
    inputs, outputs = (torch.full((count,), FIXED) for count in (ins, outs))
    run.recorder.add_layer(_record(name, module, before, after, inputs, outputs))


def slice_vector(
    run: LabelInterpreter, name: str, module: Any, tensor: str, labels: Tensor
) -> None:
    """Note that a parameter or buffer, if there, has one value per channel."""
    value = getattr(module, tensor, None)
    if isinstance(value, Tensor) and value.numel() == labels.numel():
        run.recorder.slice_axis(name, tensor, 0, labels)


def _fixed(run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor, reason: str) -> Any:
    before = run.shape(node.all_input_nodes[0])
    fixed_layer(run, str(node.target), module, before, result.shape)
    return run.fix_all(node, result, reason)


def _record(
    name: str,
    module: Any,
    before: torch.Size,
    after: torch.Size,
    inputs: Tensor,
    outputs: Tensor,
) -> LayerRecord:
    if isinstance(module, nn.Linear):
        positions, kernel, groups, depthwise = after[1:].numel() // after[-1], 1, 1, False
    else:
        # Every input position of a transposed convolution meets every kernel position.
        positions = math.prod((before if isinstance(module, _Transposed) else after)[2:])
        kernel, depthwise = math.prod(module.kernel_size), _is_depthwise(module)
        groups = 1 if depthwise else module.groups
    return LayerRecord(
        name,
        positions * kernel,
        kernel,
        # A convolution gets one from the batch norm that is folded into it.
        module.bias is not None or not isinstance(module, nn.Linear),
        groups,
        depthwise,
        inputs,
        outputs,
        _geometry(module, before, positions),
    )


def _geometry(module: Any, before: torch.Size, positions: int) -> Geometry | None:
    one = (1, 1)
    if isinstance(module, nn.Linear):
        return Geometry("linear", one, one, (0, 0), one, (positions, 1), 1)
    if not isinstance(module, nn.Conv2d):
        return None
    depthwise = _is_depthwise(module)
    # (left, right, top, bottom), also where the padding is given as "same".
    sides = module._reversed_padding_repeated_twice
    return Geometry(
        kind="depthwise" if depthwise else "conv",
        kernel=(module.kernel_size[0], module.kernel_size[1]),
        stride=(module.stride[0], module.stride[1]),
        padding=(sides[2], sides[0]),
        dilation=(module.dilation[0], module.dilation[1]),
        input_size=(before[-2], before[-1]),
        groups=1 if depthwise else module.groups,
    )


def _is_depthwise(module: Any) -> bool:
    return bool(module.groups == module.in_channels and module.groups > 1)


def _grouped_outputs(run: LabelInterpreter, name: str, module: Any, inputs: Tensor) -> Tensor:
    """Tie the j-th input of every group, and the j-th output of every group."""
    per_group = inputs.reshape(module.groups, -1)  # (groups, inputs per group)
    run.space.unite(per_group[:1], per_group)
    run.recorder.consume(name, 1, inputs)
    run.recorder.slice_axis(name, "weight", 1, per_group[0])
    outputs = _outputs_of(run, name, module.out_channels)
    grouped = outputs.reshape(module.groups, -1)
    run.space.unite(grouped[:1], grouped)
    return outputs


def _outputs_of(run: LabelInterpreter, name: str, count: int) -> Tensor:
    """Return fresh labels for a layer's outputs, or those of its first call where it is shared."""
    layer = run.recorder.layers.get(name)
    return run.space.fresh(count) if layer is None else layer.out_labels

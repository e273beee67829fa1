"""What each kind of module does to channel labels: one rule per kind, found in a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from compressor.graph.channel_graph import Geometry
from compressor.graph.interpreter import LabelInterpreter, fixed_like
from compressor.graph.labels import along_axis, narrow, varying_axes
from compressor.graph.recorder import LayerRecord
from compressor.models.layers import ChannelPad
from compressor.placeholders import Constant, Nothing

ModuleRule = Callable[[LabelInterpreter, fx.Node, Any, Any], Any]


def labels_of_module(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    """Return the labels of what a leaf module made, given that its inputs are labelled."""
    module = run.fetch_attr(str(node.target))
    run.recorder.calls.setdefault(str(node.target), []).append(node)
    rule = _rule_for(module)
    if rule is None:
        reason = f"module type '{type(module).__name__}' is not understood"
        return run.fix_all(node, result, str(node.target), reason)
    return rule(run, node, module, result)


def _rule_for(module: nn.Module) -> ModuleRule | None:
    by_name = _RULES_BY_NAME.get(type(module).__name__)
    return by_name or next((rule for kinds, rule in _RULES if isinstance(module, kinds)), None)


def _convolution(run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    if varying_axes(labels) not in ([], [1]):
        return run.fix_all(node, result, str(node.target), "its input mixes channels and positions")
    name = str(node.target)
    inputs = labels.expand(1, module.in_channels, *labels.shape[2:]).reshape(module.in_channels)
    kernel = math.prod(module.kernel_size)
    positions = math.prod(result.shape[2:])
    depthwise = module.groups == module.in_channels and module.groups > 1
    if depthwise:
        outputs = inputs.repeat_interleave(module.out_channels // module.in_channels)
    elif module.groups == 1:
        run.recorder.consume(name, 1, inputs)
        run.recorder.slice_axis(name, "weight", 1, inputs)
        outputs = _outputs_of(run, name, module.out_channels)
    else:
        outputs = _grouped_outputs(run, name, module, inputs)
    run.recorder.slice_axis(name, "weight", 0, outputs)
    _slice_vector(run, name, module, "bias", outputs)
    layer = LayerRecord(
        name,
        positions * kernel,
        kernel,
        True,
        1 if depthwise else module.groups,
        depthwise,
        inputs,
        outputs,
        _geometry(run, node, module),
    )
    run.recorder.add_layer(layer)
    return along_axis(outputs, 1, result.dim())


def _geometry(run: LabelInterpreter, node: fx.Node, module: Any) -> Geometry | None:
    if not isinstance(module, nn.Conv2d):
        return None
    depthwise = module.groups == module.in_channels and module.groups > 1
    before = run.shapes[node.all_input_nodes[0]].sizes
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


def _transposed_convolution(
    run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor
) -> Any:
    (labels,) = run.input_labels(node)
    if module.groups != 1 or varying_axes(labels) not in ([], [1]):
        reason = "a grouped transposed convolution"
        return run.fix_all(node, result, str(node.target), reason)
    name = str(node.target)
    inputs = labels.expand(1, module.in_channels, *labels.shape[2:]).reshape(module.in_channels)
    outputs = _outputs_of(run, name, module.out_channels)
    run.recorder.consume(name, 1, inputs)
    run.recorder.slice_axis(name, "weight", 0, inputs)
    run.recorder.slice_axis(name, "weight", 1, outputs)
    _slice_vector(run, name, module, "bias", outputs)
    kernel = math.prod(module.kernel_size)
    # Every input position meets every kernel position.
    positions = math.prod(run.shapes[node.all_input_nodes[0]].sizes[2:])
    layer = LayerRecord(name, positions * kernel, kernel, True, 1, False, inputs, outputs, None)
    run.recorder.add_layer(layer)
    return along_axis(outputs, 1, result.dim())


def _linear(run: LabelInterpreter, node: fx.Node, module: nn.Linear, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    if varying_axes(labels) not in ([], [labels.dim() - 1]):
        return run.fix_all(node, result, str(node.target), "its input mixes channels and positions")
    name = str(node.target)
    inputs = labels.reshape(-1).expand(module.in_features)
    outputs = _outputs_of(run, name, module.out_features)
    run.recorder.consume(name, -1, inputs)
    run.recorder.slice_axis(name, "weight", 1, inputs)
    run.recorder.slice_axis(name, "weight", 0, outputs)
    _slice_vector(run, name, module, "bias", outputs)
    positions = result[0].numel() // module.out_features
    biased, one, zero = module.bias is not None, (1, 1), (0, 0)
    geometry = Geometry("linear", one, one, zero, one, (positions, 1), 1)
    layer = LayerRecord(name, positions, 1, biased, 1, False, inputs, outputs, geometry)
    run.recorder.add_layer(layer)
    return along_axis(outputs, result.dim() - 1, result.dim())


def _outputs_of(run: LabelInterpreter, name: str, count: int) -> Tensor:
    """Return fresh labels for a layer's outputs, or those of its first call where it is shared."""
    layer = run.recorder.layers.get(name)
    return run.space.fresh(count) if layer is None else layer.out_labels


def _per_channel(run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor) -> Any:
    """Batch and instance norm, PReLU: one value per channel, labels pass."""
    (labels,) = run.input_labels(node)
    count = result.shape[1]
    if varying_axes(labels) not in ([], [1]):
        return run.fix_all(node, result, str(node.target), "its input mixes channels and positions")
    channels = labels.reshape(-1).expand(count)
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        _slice_vector(run, str(node.target), module, tensor, channels)
    return labels


def _slice_vector(
    run: LabelInterpreter, name: str, module: Any, tensor: str, labels: Tensor
) -> None:
    value = getattr(module, tensor, None)
    if isinstance(value, Tensor) and value.numel() == labels.numel():
        run.recorder.slice_axis(name, tensor, 0, labels)


def _pass_module(run: LabelInterpreter, node: fx.Node, module: Any, result: Any) -> Any:
    return run.elementwise(node, result)


def _pooling(run: LabelInterpreter, node: fx.Node, module: Any, result: Any) -> Any:
    return run.pooling(node, result)


def _statistics_module(run: LabelInterpreter, node: fx.Node, module: Any, result: Any) -> Any:
    for labels in run.input_labels(node):
        run.recorder.fix(str(node.target), labels, "its statistics are taken over all channels")
    return run.elementwise(node, result)


def _shape_module(run: LabelInterpreter, node: fx.Node, module: Any, result: Any) -> Any:
    return narrow(module(run.expanded(node.all_input_nodes[0])))


def _channel_shuffle(run: LabelInterpreter, node: fx.Node, module: Any, result: Any) -> Any:
    (labels,) = run.input_labels(node)
    per_group = labels.expand(1, result.shape[1], *labels.shape[2:]).reshape(module.groups, -1)
    run.space.unite(per_group[:1], per_group)
    return along_axis(per_group.t().reshape(-1), 1, result.dim())


def _channel_pad(run: LabelInterpreter, node: fx.Node, module: ChannelPad, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    inputs = labels.reshape(-1).expand(result.shape[1] - module.front - module.back)
    front, back = run.space.fresh(module.front), run.space.fresh(module.back)
    run.recorder.counts[str(node.target), "front"] = front
    run.recorder.counts[str(node.target), "back"] = back
    return along_axis(torch.cat((front, inputs, back)), 1, result.dim())


def _constant(run: LabelInterpreter, node: fx.Node, module: Constant, result: Tensor) -> Any:
    labels = run.space.fresh(result.shape[1])
    run.recorder.slice_axis(str(node.target), "value", 1, labels)
    return along_axis(labels, 1, result.dim())


def _nothing(run: LabelInterpreter, node: fx.Node, module: Nothing, result: Tensor) -> Any:
    return fixed_like(result)


_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.LPPool2d,
    nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d,
)  # fmt: skip
_UNARY = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.LogSigmoid,
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip

_RULES: tuple[tuple[tuple[Any, ...], ModuleRule], ...] = (
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed_convolution),
    ((nn.Linear,), _linear),
    (
        (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU),
        _per_channel,
    ),
    ((ChannelPad,), _channel_pad),
    ((Constant,), _constant),
    ((Nothing,), _nothing),
    (_POOLS, _pooling),
    (_UNARY, _pass_module),
    ((nn.LayerNorm, nn.GroupNorm), _statistics_module),
    ((nn.Flatten,), _shape_module),
    ((nn.ChannelShuffle,), _channel_shuffle),
)

# Classes of other libraries, known by name so that those libraries need not be imported.
_RULES_BY_NAME: dict[str, ModuleRule] = {
    "FrozenBatchNorm2d": _per_channel,
    "StochasticDepth": _pass_module,
    "DropPath": _pass_module,
}

"""What each kind of module does to channel labels: one rule per kind, found in a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from compressor.graph.interpreter import LabelInterpreter, fixed_like, place
from compressor.graph.labels import along_axis, narrow, varying_axes
from compressor.graph.layer_rules import (
    convolution,
    linear,
    slice_vector,
    transposed_convolution,
)
from compressor.graph.probe import obeys
from compressor.models.layers import ChannelPad
from compressor.placeholders import Constant, Nothing

ModuleRule = Callable[[LabelInterpreter, fx.Node, Any, Any], Any]


def labels_of_module(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    """Return the labels of what a leaf module made, given that its inputs are labelled."""
    module, name = run.module_of(node), str(node.target)
    run.recorder.calls.setdefault(name, []).append(node)
    rule = rule_for(module)
    if "opaque" in node.meta or rule is None:
        reason = f"{type(module).__name__}: {node.meta.get('opaque', 'it is not understood')}"
        run.recorder.fixed.setdefault(place(node), reason)
        return run.fix_all(node, result, reason)
    return rule(run, node, module, result)


def rule_for(module: nn.Module) -> ModuleRule | None:
    """Return the rule for a module's class or the class that it is derived from, if any."""
    by_name = _RULES_BY_NAME.get(type(module).__name__)
    return by_name or next((rule for kinds, rule in _RULES if isinstance(module, kinds)), None)


def is_leaf(module: nn.Module, example: Any) -> bool:
    """Return whether a module is one operation, whose rule describes it.

    Args:
        example: the first thing that it is called with.
    """
    rule = rule_for(module)
    if rule is None:
        return False
    kind = type(module)
    known = kind.__module__.startswith("torch.") or isinstance(
        module, (ChannelPad, Constant, Nothing)
    )
    if known or kind.__name__ in _RULES_BY_NAME:
        return True
    if not isinstance(example, Tensor) or not list(module.parameters()):
        return False
    # Where it has its channels, libraries decide otherwise than PyTorch: LayerNorm2d has them at 1.
    axes = {nn.Linear: (-1,), nn.LayerNorm: (-1, 1)}
    wanted = next((axes[kind] for kind in axes if isinstance(module, kind)), (1,))
    return any(obeys(module, rule, example, axis) for axis in wanted)


def _per_channel(run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor) -> Any:
    """Batch and instance norm, PReLU: one value per channel, labels pass."""
    (labels,) = run.input_labels(node)
    count = result.shape[1]
    if varying_axes(labels) not in ([], [1]):
        return run.fix_all(node, result, "its input mixes channels and positions")
    channels = labels.reshape(-1).expand(count)
    _slice_vectors(run, str(node.target), module, channels)
    for attribute in ("num_features", "num_parameters"):
        if getattr(module, attribute, None) == len(channels):
            run.recorder.count(str(node.target), attribute, channels)
    return labels


def _slice_vectors(run: LabelInterpreter, name: str, module: Any, channels: Tensor) -> None:
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        slice_vector(run, name, module, tensor, channels)


def _pass_module(run: LabelInterpreter, node: fx.Node, module: Any, result: Any) -> Any:
    return run.elementwise(node, result)


def _pooling(run: LabelInterpreter, node: fx.Node, module: Any, result: Any) -> Any:
    return run.pooling(node, result)


def _layer_norm(run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor) -> Any:
    """Labels pass, and dropped channels leave the statistics (`joint_norm`)."""
    (labels,) = run.input_labels(node)
    axes, inner = varying_axes(labels), len(module.normalized_shape)
    own_class = type(module) is nn.LayerNorm
    normalized = range(labels.dim() - inner, labels.dim())
    if not axes or (own_class and axes[0] not in normalized and len(axes) == 1):
        return labels
    if len(axes) > 1 or inner > 1:
        return run.fix_all(node, result, "its statistics are taken over all channels")
    _note_joint_norm(run, node, module, labels, axes[0])
    run.recorder.count(str(node.target), "normalized_shape.0", labels.reshape(-1))
    return labels


def _group_norm(run: LabelInterpreter, node: fx.Node, module: Any, result: Tensor) -> Any:
    """One group: as layer norm. Several: each normalizes alone, so that whole groups can go."""
    (labels,) = run.input_labels(node)
    if varying_axes(labels) == []:
        return labels
    if varying_axes(labels) != [1]:
        return run.fix_all(node, result, "its input mixes channels and positions")
    name, channels = str(node.target), labels.reshape(-1)
    if module.num_groups == 1:
        _note_joint_norm(run, node, module, labels, 1)
    else:
        per_group = channels.reshape(module.num_groups, -1)
        run.space.unite(per_group[:, :1], per_group)
        _slice_vectors(run, name, module, channels)
        run.recorder.count(name, "num_groups", per_group[:, 0])
    run.recorder.count(name, "num_channels", channels)
    return labels


def _note_joint_norm(
    run: LabelInterpreter, node: fx.Node, module: Any, labels: Tensor, axis: int
) -> None:
    name, channels = str(node.target), labels.reshape(-1)
    _slice_vectors(run, name, module, channels)
    known = run.recorder.joint_norms.setdefault(name, (axis, channels))
    run.space.unite(known[1], channels)


def _flatten(run: LabelInterpreter, node: fx.Node, module: nn.Flatten, result: Tensor) -> Any:
    labels = run.expanded(node.all_input_nodes[0])
    return narrow(labels.flatten(module.start_dim, module.end_dim))


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
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), transposed_convolution),
    ((nn.Linear,), linear),
    (
        (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU),
        _per_channel,
    ),
    ((ChannelPad,), _channel_pad),
    ((Constant,), _constant),
    ((Nothing,), _nothing),
    (_POOLS, _pooling),
    (_UNARY, _pass_module),
    ((nn.LayerNorm,), _layer_norm),
    ((nn.GroupNorm,), _group_norm),
    ((nn.Flatten,), _flatten),
    ((nn.ChannelShuffle,), _channel_shuffle),
)

# Classes of other libraries, known by name so that those libraries need not be imported.
_RULES_BY_NAME: dict[str, ModuleRule] = {
    "FrozenBatchNorm2d": _per_channel,
    "StochasticDepth": _pass_module,
    "DropPath": _pass_module,
}

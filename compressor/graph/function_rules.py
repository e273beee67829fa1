"""What each function or tensor method does to channel labels.

Operators that only move numbers (transpose, cat, ...) are *executed on the labels*, which finds
every coupling. Operators with numbers in their arguments are in `size_rules`. An operator that no
table knows fixes what it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from compressor.graph.interpreter import LabelInterpreter, fixed_like, function_name
from compressor.graph.labels import align, joint_shape, narrow, varying_axes
from compressor.graph.layer_rules import LAYERS, fixed_layer
from compressor.graph.module_rules import labels_of_module
from compressor.graph.replay import argument, replay
from compressor.graph.size_rules import SIZE_RULES

FunctionRule = Callable[[LabelInterpreter, fx.Node, Any], Any]


def labels_of_node(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    """Return the labels of what a node made, given that its inputs are labelled."""
    if node.op == "placeholder":
        return fixed_like(result)
    if node.op == "get_attr":
        return _free_parameter(run, node, result)
    if node.op == "output":
        return run.fix_all(node, result, "the network's output")
    if node.op == "call_module":
        return labels_of_module(run, node, result)
    name = function_name(node.target)
    rule = SIZE_RULES.get(name)
    if rule is None:
        for source in node.all_input_nodes:
            run.spoil(source, f"'{name}' computes with a number of channels", node)
        if not run.input_labels(node):
            return fixed_like(result)
        rule = _RULES.get(name)
    if rule is None:
        _note_functional_layer(run, node, name, result)
        reason = _REASONS.get(name, f"operator '{name}' is not understood")
        return run.fix_all(node, result, reason)
    try:
        return rule(run, node, result)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        # A known operator in a form that its rule doesn't foresee: never a reason to refuse a net.
        return run.fix_all(node, result, f"this use of '{name}' is not understood")


def _free_parameter(run: LabelInterpreter, node: fx.Node, value: Tensor) -> Any:
    """Layer scales and other parameters that `forward` uses by name are sliced like the rest."""
    wide = [axis for axis, size in enumerate(value.shape) if size > 1]
    module, _, tensor = str(node.target).rpartition(".")
    owner = run.model.get_submodule(module)
    own = tensor in owner._parameters or tensor in owner._buffers
    if len(wide) != 1 or not own or not value.is_floating_point():
        return fixed_like(value)
    key = (module, tensor, wide[0])
    known = run.recorder.slices.get(key)
    labels = run.space.fresh(value.numel()) if known is None else known
    run.recorder.slice_axis(*key, labels)
    return labels.reshape(value.shape)


def _note_functional_layer(run: LabelInterpreter, node: fx.Node, name: str, result: Any) -> None:
    """A layer's weight that `forward` uses without calling the layer costs as the layer does."""
    if name in ("linear", "conv1d", "conv2d", "conv3d") and len(node.args) > 1:
        source, weight = node.args[:2]
        if isinstance(source, fx.Node) and isinstance(weight, fx.Node) and weight.op == "get_attr":
            module = str(weight.target).rpartition(".")[0]
            owner = run.model.get_submodule(module)
            if isinstance(owner, LAYERS):
                fixed_layer(run, module, owner, run.shape(source), result.shape)


def _elementwise(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    return run.elementwise(node, result)


def _pooling(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    return run.pooling(node, result)


def _moved(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    return narrow(replay(run, node))


def _squeezed(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    if argument(run, node, 1, "dim", default=None) is None:
        # A layer of one kept channel would lose its axis.
        return run.fix_all(node, result, "it squeezes whatever has size 1")
    return narrow(replay(run, node))


def _normalized(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    axis = argument(run, node, 2, "dim", default=1) % labels.dim()
    if axis in varying_axes(labels):
        return run.fix_all(node, result, "it normalizes over channels")
    return labels


def _concatenated(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    axis = argument(run, node, 1, "dim", "axis", default=0) % result.dim()
    sources: Any = node.args[0] if node.args else node.kwargs["tensors"]
    parts = [run.labels[source] for source in sources]
    widths = [run.shape(source)[axis] for source in sources]
    flat = [part.narrow(axis, 0, 1) for part in parts]
    shape = list(joint_shape(flat))
    wide = []
    for part, width in zip(parts, widths, strict=True):
        shape[axis] = width
        wide.append(part.expand(shape))
    return narrow(torch.cat(wide, dim=axis))


def _stacked(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    """The operands of a stack stand side by side at every position, as those of a sum do."""
    axis = argument(run, node, 1, "dim", default=0) % result.dim()
    sources: Any = node.args[0] if node.args else node.kwargs["tensors"]
    parts = [run.labels[source] for source in sources]
    united = parts[0].expand(joint_shape(parts))
    for part in parts[1:]:
        run.space.unite(united, part)
    return united.unsqueeze(axis)


def _unbound(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    (labels,) = run.input_labels(node)
    axis = argument(run, node, 1, "dim", default=0) % labels.dim()
    if axis in varying_axes(labels):
        return run.fix_all(node, result, "channels are picked by index")
    return tuple(labels.squeeze(axis) for _ in result)


def _reduced(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    """Mean, sum, softmax and the like over some axes."""
    position = 2 if function_name(node.target) in _ORDER_BEFORE_AXES else 1
    (labels,) = run.input_labels(node)
    axes = argument(run, node, position, "dim", "axis", default=None)
    if axes is None:
        return run.fix_all(node, result, "it reduces over all channels")
    over = {axis % labels.dim() for axis in ((axes,) if isinstance(axes, int) else axes)}
    if over & set(varying_axes(labels)):
        return run.fix_all(node, result, "it reduces over channels")
    if isinstance(result, tuple):
        return tuple(_without(labels, over, part.dim()) for part in result)
    return _without(labels, over, result.dim())


def _without(labels: Tensor, axes: set[int], rank: int) -> Tensor:
    if rank == labels.dim():
        return labels
    kept = [size for axis, size in enumerate(labels.shape) if axis not in axes]
    return align(labels.reshape(kept), rank)


def _rolled(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    axes = argument(run, node, 2, "dims", default=None)
    over = range(labels.dim()) if axes is None else (axes,) if isinstance(axes, int) else axes
    if {axis % labels.dim() for axis in over} & set(varying_axes(labels)):
        return run.fix_all(node, result, "it rolls channels")
    return labels


def _pixel_shuffled(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    """C r^2 channels become C: those that share a plane afterwards live or die together."""
    shuffled = replay(run, node)  # over one plane stand the labels of its r^2 channels
    first = shuffled[..., :1, :1]
    run.space.unite(first, shuffled)
    return narrow(first)


def _table(names: str, rule: FunctionRule) -> dict[str, FunctionRule]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, FunctionRule] = {
    **_table(
        """add iadd radd sub isub rsub mul imul rmul div rdiv truediv itruediv rtruediv maximum
        minimum where pow rpow addcmul addcdiv lerp masked_fill copy fill zero eq ne lt le gt ge
        logical_and logical_or logical_not
        relu relu6 leaky_relu elu celu selu gelu silu mish sigmoid logsigmoid hardswish hardsigmoid
        hardtanh tanh softplus softsign exp log log1p sqrt rsqrt abs neg clamp clamp_min clamp_max
        clip square reciprocal sin cos erf round floor ceil sign nan_to_num
        dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout stochastic_depth
        drop_path zeros_like ones_like full_like empty_like rand_like randn_like
        contiguous clone detach float double half bfloat16 to type type_as data requires_grad""",
        _elementwise,
    ),
    **_table(
        """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d
        interpolate upsample lp_pool2d grid_sample""",
        _pooling,
    ),
    **_table(
        """mean sum amax amin var std var_mean std_mean softmax log_softmax norm linalg_norm
        linalg_vector_norm logsumexp cumsum argmax argmin prod any all""",
        _reduced,
    ),
    **_table(
        """flatten transpose permute unsqueeze swapaxes swapdims movedim moveaxis expand_as t T mT H
        flip adjoint""",
        _moved,
    ),
    **_table("stack", _stacked),
    **_table("unbind", _unbound),
    **_table("roll", _rolled),
    **_table("pixel_shuffle", _pixel_shuffled),
    **_table("pixel_unshuffle", _moved),
    **_table("squeeze", _squeezed),
    **_table("normalize", _normalized),
    **_table("cat concat concatenate", _concatenated),
}

_REASONS = {
    **dict.fromkeys(
        """matmul bmm baddbmm einsum scaled_dot_product_attention
        multi_head_attention_forward""".split(),  # noqa: SIM905
        "attention: a product of two feature maps",
    ),
    **dict.fromkeys(
        "linear conv1d conv2d conv3d batch_norm layer_norm group_norm".split(),  # noqa: SIM905
        "weights that are used without calling their module",
    ),
}

_ORDER_BEFORE_AXES = ("norm", "linalg_norm", "linalg_vector_norm")
"""Norms, whose second argument is their order."""

_APART = (_elementwise, _pooling, _reduced, _squeezed, _normalized)


def keeps_channels_apart(name: str) -> bool:
    """Return whether an operator does the same whatever the number of channels."""
    return _RULES.get(name) in _APART or name in ("flatten", "unsqueeze", "expand", "expand_as")

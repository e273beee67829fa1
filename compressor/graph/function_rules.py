"""What each function or tensor method does to channel labels.

Operators that only move numbers (view, transpose, cat, ...) are *executed on the labels*, which
finds every coupling. Their constants must still hold once channels are gone: a view that splits the
channels ties partners, a literal width fixes them. An operator that no table knows fixes what it
reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from compressor.graph.interpreter import LabelInterpreter, fixed_like
from compressor.graph.labels import align, joint_shape, narrow, varying_axes
from compressor.graph.module_rules import labels_of_module

FunctionRule = Callable[[LabelInterpreter, fx.Node, Any], Any]


def labels_of_node(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    """Return the labels of what a node made, given that its inputs are labelled."""
    if node.op == "placeholder":
        return fixed_like(result)
    if node.op == "get_attr":
        return _free_parameter(run, node, result)
    if node.op == "output":
        return run.fix_all(node, result, "output", "the network's output")
    if node.op == "call_module":
        return labels_of_module(run, node, result)
    if node in run.scalars or not run.input_labels(node):
        return fixed_like(result)
    name = function_name(node)
    rule = _RULES.get(name)
    if rule is None:
        return run.fix_all(node, result, name, f"operator '{name}' is not understood")
    try:
        return rule(run, node, result)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        # A known operator in a form that its rule doesn't foresee: never a reason to refuse a net.
        return run.fix_all(node, result, node.name, f"this use of '{name}' is not understood")


def function_name(node: fx.Node) -> str:
    """Return the name of a node's function or method, in place or not."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.rstrip("_")  # add_ and add mean the same to labels


def _free_parameter(run: LabelInterpreter, node: fx.Node, value: Any) -> Any:
    """Layer scales and other parameters that `forward` uses by name are sliced like the rest."""
    if not isinstance(value, Tensor):
        return None
    wide = [axis for axis, size in enumerate(value.shape) if size > 1]
    if len(wide) != 1:
        return fixed_like(value)
    module, _, tensor = str(node.target).rpartition(".")
    key = (module, tensor, wide[0])
    known = run.recorder.slices.get(key)
    labels = run.space.fresh(value.numel()) if known is None else known
    run.recorder.slice_axis(*key, labels)
    return labels.reshape(value.shape)


def _elementwise(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    return run.elementwise(node, result)


def _pooling(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    return run.pooling(node, result)


def _replay(run: LabelInterpreter, node: fx.Node) -> Any:
    """Call the node's own function on labels in full shape."""

    def value_of(argument: fx.Node) -> Any:
        return run.scalars[argument] if argument in run.scalars else run.expanded(argument)

    args = fx.node.map_arg(node.args, value_of)
    kwargs = fx.node.map_arg(node.kwargs, value_of)
    if node.op == "call_function":
        return node.target(*args, **kwargs)  # type: ignore[operator]
    # A view of expanded labels may be impossible where the tensor's own view is not.
    method = "reshape" if node.target == "view" else str(node.target)
    return getattr(args[0], method)(*args[1:], **kwargs)


def _moved(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    return narrow(_replay(run, node))


def _expanded(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    wide = {axis + result.dim() - labels.dim() for axis in varying_axes(labels)}
    if wide & _literal_axes(node, result.dim()):
        return run.fix_all(node, result, node.name, "a width is written in the code of an expand")
    return narrow(_replay(run, node))


def _squeezed(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    if _argument(node, 1, "dim", default=None) is None:
        # A layer of one kept channel would lose its axis.
        return run.fix_all(node, result, node.name, "it squeezes whatever has size 1")
    return narrow(_replay(run, node))


def _normalized(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    axis = _argument(node, 2, "dim", default=1) % labels.dim()
    if axis in varying_axes(labels):
        return run.fix_all(node, result, node.name, "it normalizes over channels")
    return labels


def _reshaped(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    """View and reshape: splitting the channels ties them; literal widths fix them."""
    before = varying_axes(run.input_labels(node)[0])
    labels = narrow(_replay(run, node))
    axes = varying_axes(labels)
    literal = _literal_axes(node, result.dim())
    if len(before) == 1 and len(axes) == 2:
        # One axis must keep its length: the one whose size is written in the code.
        tied, free = axes if axes[1] not in literal else reversed(axes)
        first = labels.narrow(tied, 0, 1)
        run.space.unite(first, labels)
        labels, axes = first, [free]
    if len(axes) > 1 or any(axis in literal for axis in axes):
        return run.fix_all(node, result, node.name, "a width is written in the code of a reshape")
    return labels


def _literal_axes(node: fx.Node, rank: int) -> set[int]:
    sizes = node.args[1:] or tuple(node.kwargs.values())
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    if len(sizes) != rank:
        return set()
    return {axis for axis, size in enumerate(sizes) if isinstance(size, int) and size > 1}


def _concatenated(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    axis = _argument(node, 1, "dim", "axis", default=0) % result.dim()
    sources: Any = node.args[0] if node.args else node.kwargs["tensors"]
    parts = [run.labels[source] for source in sources]
    widths = [run.shapes[source].sizes[axis] for source in sources]
    flat = [part.narrow(axis, 0, 1) for part in parts]
    shape = list(joint_shape(flat))
    wide = []
    for part, width in zip(parts, widths, strict=True):
        shape[axis] = width
        wide.append(part.expand(shape))
    return narrow(torch.cat(wide, dim=axis))


def _chunked(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    """Chunk, split, tensor_split: parts of the channels must stay equally wide."""
    parts = tuple(narrow(part) for part in _replay(run, node))
    (labels,) = run.input_labels(node)
    axis = _argument(node, 2, "dim", "axis", default=0) % labels.dim()
    if axis not in varying_axes(labels):
        return parts
    amount = _argument(node, 1, "chunks", "split_size", "split_size_or_sections", default=None)
    by_count = function_name(node) == "chunk" or isinstance(amount, fx.Node)
    if not by_count or len({part.shape[axis] for part in result}) != 1:
        return run.fix_all(node, result, node.name, "a width is written in the code of a split")
    for part in parts[1:]:
        run.space.unite(parts[0], part)
    return parts


def _item(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    source, index = node.args
    labels = run.labels[source]  # type: ignore[index]
    if not isinstance(labels, Tensor):
        return labels[index]
    entries = index if isinstance(index, tuple) else (index,)
    touched = {axis for axis, entry in enumerate(entries) if entry != slice(None)}
    if Ellipsis in entries or None in entries:
        touched = set(range(labels.dim()))
    if touched & set(varying_axes(labels)):
        return run.fix_all(node, result, node.name, "channels are picked by index")
    return narrow(_replay(run, node))


def _padded(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    amounts = _argument(node, 1, "pad", default=())
    last = result.dim() - 1
    padded = {
        last - pair for pair in range(len(amounts) // 2) if any(amounts[2 * pair : 2 * pair + 2])
    }
    if padded & set(varying_axes(labels)):
        return run.fix_all(node, result, node.name, "padding of channels is written in the code")
    return labels


def _reduced(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    """Mean, sum, softmax and the like over some axes."""
    (labels,) = run.input_labels(node)
    axes = _argument(node, 1, "dim", "axis", default=None)
    if axes is None:
        return run.fix_all(node, result, node.name, "it reduces over all channels")
    over = {axis % labels.dim() for axis in ((axes,) if isinstance(axes, int) else axes)}
    if over & set(varying_axes(labels)):
        return run.fix_all(node, result, node.name, "it reduces over channels")
    if result.dim() == labels.dim():
        return labels
    kept = [size for axis, size in enumerate(labels.shape) if axis not in over]
    return align(labels.reshape(kept), result.dim())


def _argument(node: fx.Node, position: int, *names: str, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return next((node.kwargs[name] for name in names if name in node.kwargs), default)


def _table(names: str, rule: FunctionRule) -> dict[str, FunctionRule]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, FunctionRule] = {
    **_table(
        """add iadd radd sub isub rsub mul imul rmul div truediv itruediv maximum minimum where pow
        relu relu6 leaky_relu elu celu selu gelu silu mish sigmoid logsigmoid hardswish hardsigmoid
        hardtanh tanh softplus exp log sqrt rsqrt abs neg clamp clip square reciprocal
        dropout dropout2d feature_dropout stochastic_depth drop_path
        contiguous clone detach float half to type type_as""",
        _elementwise,
    ),
    **_table(
        """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d
        interpolate upsample lp_pool2d""",
        _pooling,
    ),
    **_table("mean sum amax amin var std softmax log_softmax", _reduced),
    **_table(
        "flatten transpose permute unsqueeze swapaxes movedim expand_as t flip",
        _moved,
    ),
    "expand": _expanded,
    "squeeze": _squeezed,
    "normalize": _normalized,
    **_table("view reshape unflatten", _reshaped),
    **_table("cat concat concatenate", _concatenated),
    **_table("chunk split tensor_split", _chunked),
    "getitem": _item,
    "pad": _padded,
}

_APART = (_elementwise, _pooling, _reduced, _expanded, _squeezed, _normalized)


def keeps_channels_apart(name: str) -> bool:
    """Return whether an operator does the same whatever the number of channels."""
    return _RULES.get(name) in _APART or name in ("flatten", "unsqueeze", "expand_as")

"""Operators with sizes in their arguments: views, splits, slices, pads.

Their numbers must still hold once channels are gone. A size that the code reads off a tensor
follows by itself; an attribute of a module is set by the slimmer (`Recorder.count`); a view that
splits the channels ties partners; a number written in the code fixes the channels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from compressor.graph.interpreter import LabelInterpreter, fixed_like, function_name
from compressor.graph.labels import FIXED, along_axis, narrow, varying_axes
from compressor.graph.replay import argument, replay

SizeRule = Callable[[LabelInterpreter, fx.Node, Any], Any]


class _Unfit(ValueError):
    """A number doesn't follow its channels; the message says why."""


def _or_fixed(rule: SizeRule) -> SizeRule:
    """Let a rule give up: what the node reads is fixed then."""

    def checked(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
        try:
            return rule(run, node, result)
        except _Unfit as error:
            return run.fix_all(node, result, str(error))

    return checked


def _follows(run: LabelInterpreter, size: Any, labels: Tensor, what: str) -> None:
    """Make sure that a number is how many of some channels there are, now and after slimming.

    Raises:
        _Unfit: it can't be made to follow.
    """
    if isinstance(size, int):
        if not run.space.all_fixed(labels):
            raise _Unfit(f"a width is written in the code of a {what}")
        return
    counted = run.counted.get(size)
    if counted is None or counted.attribute is not None:
        if counted is not None and not run.space.all_fixed(labels):
            assert counted.attribute is not None
            run.recorder.count(*counted.attribute, labels)
            return
        run.spoil(size, f"a width in a {what}")
        if not run.space.all_fixed(labels):
            raise _Unfit(f"a width is written in the code of a {what}")
    elif counted.exact and counted.labels.numel() == labels.numel():
        run.space.unite(counted.labels, labels)
    else:
        run.spoil(size, f"a computed width in a {what}")
        if not run.space.all_fixed(labels):
            raise _Unfit(f"a computed width in a {what}")


def _own(run: LabelInterpreter, size: Any, labels: Tensor) -> bool:
    """Return whether a number is computed from the number of these channels alone."""
    counted = run.counted.get(size) if isinstance(size, fx.Node) else None
    if counted is None or not counted.labels.numel():
        return False
    run.recorder.spoiled.update(counted.attributes)
    roots = set(run.space.roots(counted.labels).tolist())
    return roots <= set(run.space.roots(labels.reshape(-1)).tolist())


def _reshaped(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    """View and reshape: splitting the channels ties them."""
    (source,) = run.input_labels(node)
    before = varying_axes(source)
    labels = narrow(replay(run, node))
    axes, sizes = varying_axes(labels), _new_sizes(run, node, result.dim())
    held = {axis for axis, size in sizes.items() if _is_held(run, size)}
    if len(before) == 1 and len(axes) == 2:
        # One axis must keep its length: the one whose size is written in the code.
        tied, free = axes if axes[1] not in held else reversed(axes)
        first = labels.narrow(tied, 0, 1)
        run.space.unite(first, labels)
        labels, axes = first, [free]
    if len(axes) > 1:
        raise _Unfit("a reshape splits the channels or mixes them with positions")
    for axis, size in sizes.items():
        if axis in axes:
            if not _own(run, size, source):
                _follows(run, size, labels.reshape(-1), "reshape")
        elif isinstance(size, fx.Node) and not _own(run, size, source):
            no_channels = torch.full((result.shape[axis],), FIXED)
            _follows(run, size, no_channels, "reshape")
    return labels


def _is_held(run: LabelInterpreter, size: Any) -> bool:
    """Return whether a size stays as it is: written in the code, or in an attribute."""
    if isinstance(size, int):
        return size > 1
    counted = run.counted.get(size)
    return counted is not None and not counted.labels.numel()


def _new_sizes(run: LabelInterpreter, node: fx.Node, rank: int) -> dict[int, Any]:
    """Return axis -> size, of the sizes that a view gives (-1 left out)."""
    if function_name(node.target) == "unflatten":
        first = argument(run, node, 1, "dim", default=0) % (rank - 1)
        sizes = argument(run, node, 2, "sizes", default=(), resolve=False)
    else:
        first, sizes = 0, node.args[1:] or tuple(node.kwargs.values())
        if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
            sizes = tuple(sizes[0])
        if len(sizes) != rank:
            return {}
    return {first + axis: size for axis, size in enumerate(sizes) if size != -1}


def _expanded(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    new = result.dim() - labels.dim()
    wide = {axis + new for axis in varying_axes(labels)}
    for axis, size in _new_sizes(run, node, result.dim()).items():
        if axis in wide:
            _follows(run, size, labels.reshape(-1), "expand")
        elif isinstance(size, fx.Node) and not run.space.all_fixed(labels):
            run.spoil(size, "a width in an expand")
    return narrow(replay(run, node))


def _shaped_like(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    labels = narrow(replay(run, node))
    run.space.unite(labels, run.labels[node.all_input_nodes[-1]])
    return labels


def _chunked(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    """Chunk, split, tensor_split: each part's width must follow its channels."""
    (labels,) = run.input_labels(node)
    parts = tuple(narrow(part) for part in replay(run, node))
    axis = argument(run, node, 2, "dim", "axis", default=0) % labels.dim()
    amount: Any = argument(
        run, node, 1, "chunks", "split_size", "split_size_or_sections", "indices_or_sections",
        default=None, resolve=False,
    )  # fmt: skip
    if axis not in varying_axes(labels):
        return parts
    equal = len({part.shape[axis] for part in result}) == 1
    if isinstance(amount, (tuple, list)):
        if function_name(node.target) == "tensor_split":
            raise _Unfit("a split at positions written in the code")
        along = [_along(p, axis, whole.shape[axis]) for p, whole in zip(parts, result, strict=True)]
        _sections(run, amount, along, equal)
        return parts
    if not equal:
        raise _Unfit("a split into unequal parts")
    whole = _along(labels, axis, run.shape(node.all_input_nodes[0])[axis])
    by_width = function_name(node.target) == "split"
    if by_width and not _is_share(run, amount, whole) and not _own(run, amount, labels):
        _follows(run, amount, _along(parts[0], axis, result[0].shape[axis]), "split")
    for part in parts[1:]:
        run.space.unite(parts[0], part)
    return parts


def _sections(run: LabelInterpreter, widths: Any, parts: list[Tensor], equal: bool) -> None:
    """Let the widths of the parts of a split follow their channels."""
    together = torch.cat(parts)
    if equal and all(_own(run, width, together) for width in widths):
        for part in parts[1:]:
            run.space.unite(parts[0], part)
        return
    if all(isinstance(width, int) for width in widths):
        raise _Unfit("a width is written in the code of a split")
    run.recorder.parts.extend(parts)
    for width, part in zip(widths, parts, strict=True):
        if len(parts) == 2 and _is_rest(run, width, together, parts[part is parts[0]]):
            continue
        if isinstance(width, int):
            run.space.fix(part)
        else:
            _follows(run, width, part, "split")


def _is_rest(run: LabelInterpreter, width: Any, whole: Tensor, other: Tensor) -> bool:
    """Return whether a number is `self.whole - self.other`, and let both attributes follow."""
    if not isinstance(width, fx.Node) or width.target is not operator.sub:
        return False
    minuend, subtrahend = width.args
    for node, labels in ((minuend, whole), (subtrahend, other)):
        if not isinstance(node, fx.Node) or run.scalars[node] != len(labels):
            return False
        counted = run.counted.get(node)
        if counted is None or counted.attribute is None:
            return False
    _follows(run, minuend, whole, "split")
    _follows(run, subtrahend, other, "split")
    return True


def _along(labels: Tensor, axis: int, size: int) -> Tensor:
    """Return the labels along an axis, shape (size,)."""
    return labels.movedim(axis, 0).reshape(labels.shape[axis], -1)[:, 0].expand(size)


def _item(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    source, index = node.args
    labels = run.labels[source]  # type: ignore[index]
    if not isinstance(labels, Tensor):
        return labels[index]
    _check_index(run, source, index)
    return narrow(replay(run, node))


def _set_item(run: LabelInterpreter, node: fx.Node, result: Any) -> Any:
    """What is written into a part of a tensor stands where the tensor's own channels stand."""
    target, index, value = node.args
    _check_index(run, target, index)
    values = fx.node.map_arg(index, lambda entry: run.scalars[entry])
    part = run.expanded(target)[values]  # type: ignore[arg-type]
    if isinstance(value, fx.Node):
        written = run.labels[value]
        run.space.unite(part, written)
    elif not run.space.all_fixed(part):
        raise _Unfit("a number is written into channels")
    return None


def _check_index(run: LabelInterpreter, source: Any, index: Any) -> None:
    """Let the bounds of slices of channels follow.

    Raises:
        _Unfit: channels are picked in another way.
    """
    labels, shape = run.labels[source], run.shape(source)
    entries = index if isinstance(index, tuple) else (index,)
    if any(isinstance(entry, fx.Node) and entry not in run.scalars for entry in entries):
        raise _Unfit("positions are picked by a tensor")
    used = sum(entry is not None and entry is not Ellipsis for entry in entries)
    axis = 0
    for entry in entries:
        if entry is None:
            continue
        if entry is Ellipsis:
            axis += len(shape) - used
            continue
        if axis in varying_axes(labels):
            _slice_follows(run, entry, _along(labels, axis, shape[axis]))
        elif isinstance(entry, fx.Node):
            run.spoil(entry, "a number of channels is used as an index")
        axis += 1


def _slice_follows(run: LabelInterpreter, entry: Any, labels: Tensor) -> None:
    if not isinstance(entry, slice) or entry.step not in (None, 1):
        raise _Unfit("channels are picked by index")
    start, stop = (run.scalars.get(bound, bound) for bound in (entry.start, entry.stop))
    run.recorder.parts.append(labels[start:stop])
    for bound in (entry.start, entry.stop):
        value = run.scalars[bound] if isinstance(bound, fx.Node) else bound
        if value is None or (isinstance(bound, int) and (bound == 0 or bound >= len(labels))):
            continue
        if value < 0 or isinstance(bound, int):
            raise _Unfit("channels are picked by index")
        if _is_share(run, bound, labels):
            parts = labels.reshape(-1, value)
            run.space.unite(parts[:1], parts)
        else:
            _follows(run, bound, labels[:value], "slice")


def _is_share(run: LabelInterpreter, size: Any, labels: Tensor) -> bool:
    """Return whether a number is that of these channels divided by an integer.

    It may be read off a tensor (`x.shape[1] // 2`) or off an attribute (`self.width // 2`), which
    follows then.
    """
    if not isinstance(size, fx.Node) or size.target is not operator.floordiv:
        return False
    whole, parts = size.args
    counted = run.counted.get(whole) if isinstance(whole, fx.Node) else None
    if counted is None or not isinstance(parts, int):
        return False
    if run.scalars[whole] != labels.numel():  # type: ignore[index]
        return False
    if labels.numel() % parts:
        return False
    if counted.attribute is not None:
        run.recorder.count(*counted.attribute, labels)
        return True
    return counted.exact and _own(run, whole, labels)


def _padded(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    (labels,) = run.input_labels(node)
    amounts: Any = argument(run, node, 1, "pad", default=(), resolve=False)
    last = result.dim() - 1
    for pair in range(len(amounts) // 2):
        both = amounts[2 * pair : 2 * pair + 2]
        if any(both) and last - pair in varying_axes(labels):
            raise _Unfit("padding of channels is written in the code")
        for amount in both:
            if isinstance(amount, fx.Node):
                run.spoil(amount, "a number of channels is used as padding")
    return labels


def _created(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    """A fresh tensor whose sizes are those of others: one position for each of their channels."""
    values = [*_flat(node.args), *_flat(tuple(node.kwargs.values()))]
    sizes = values[1:] if function_name(node.target).startswith("new") else values
    channels = {
        axis: run.counted[size]
        for axis, size in enumerate(sizes)
        if isinstance(size, fx.Node) and size in run.counted and run.counted[size].labels.numel()
    }
    if len(channels) == 1 and min(channels) < result.dim():
        ((axis, counted),) = channels.items()
        if counted.exact:
            return along_axis(counted.labels, axis, result.dim())
    for size in node.all_input_nodes:
        run.spoil(size, "a number of channels is the size of a fresh tensor")
    return fixed_like(result)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [entry for part in value for entry in _flat(part)]
    return [value]


def _selected(run: LabelInterpreter, node: fx.Node, result: Tensor) -> Any:
    """Narrow, select, index_select: harmless along an axis that holds no channels."""
    labels = run.labels[node.all_input_nodes[0]]
    axis = argument(run, node, 1, "dim", default=0) % labels.dim()
    if axis in varying_axes(labels):
        raise _Unfit("channels are picked by index")
    for source in node.all_input_nodes[1:]:
        run.spoil(source, "a number of channels is used as an index")
    return labels if result.dim() == labels.dim() else labels.squeeze(axis)


_TABLE: Mapping[str, SizeRule] = {
    **dict.fromkeys(["view", "reshape", "unflatten"], _reshaped),
    **dict.fromkeys(["view_as", "reshape_as"], _shaped_like),
    **dict.fromkeys(["chunk", "split", "tensor_split"], _chunked),
    **dict.fromkeys(["narrow", "select", "index_select"], _selected),
    **dict.fromkeys(
        ["zeros", "ones", "empty", "full", "new_zeros", "new_ones", "new_empty", "new_full"],
        _created,
    ),
    "expand": _expanded,
    "getitem": _item,
    "setitem": _set_item,
    "pad": _padded,
}
SIZE_RULES: dict[str, SizeRule] = {name: _or_fixed(rule) for name, rule in _TABLE.items()}

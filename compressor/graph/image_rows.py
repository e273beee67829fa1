"""Where the images of a batch lie in what a module reads.

Most layers have them along axis 0. Transformers fold windows, patches or positions into the batch,
some put positions first. The trace sees one image and can't tell, so the network is run on two and
on three: the axis that grows holds the images, and their values say in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from compressor.calls import first_tensor

_ROUNDING = 1e-3
"""Largest difference, relative, between the answers for one image in two batches."""

_Noted = TypeVar("_Noted")


@dataclass(frozen=True)
class ImageRows:
    """How an axis of `outer * N * inner` entries holds N images.

    Attributes:
        axis: of the tensor, from its front.
        outer: entries that stand outside of the images: 1 where the rows of each image stand
            together, as `reshape(-1, c)` of (N, ..., c) leaves them; L for L positions of N images.
            What stands inside of them follows from the size.
    """

    axis: int = 0
    outer: int = 1

    def images_first(self, x: Tensor, images: int) -> Tensor:
        """Return x with an axis for the images in front, (N, outer, inner, all other axes).

        Where that is axis 0 already, x itself.
        """
        if self._plain(x, images):
            return x
        return x.movedim(self.axis, 0).unflatten(0, (self.outer, images, -1)).movedim(1, 0)

    def back(self, y: Tensor, like: Tensor) -> Tensor:
        """Undo `images_first(like, images)` for something of its number of axes."""
        if y.dim() == like.dim():
            return y
        return y.movedim(0, 1).flatten(0, 2).movedim(0, self.axis)

    def axis_behind(self, axis: int, x: Tensor, images: int) -> int:
        """Return where `images_first(x, images)` has another axis of x."""
        axis = axis % x.dim()
        if self._plain(x, images):
            return axis
        return axis + 3 - (axis > self.axis)

    def _plain(self, x: Tensor, images: int) -> bool:
        return self.axis == 0 and len(x) == images


def find_image_rows(
    model: nn.Module, example: Tensor, modules: Iterable[str]
) -> dict[str, ImageRows | None]:
    """Find where images lie in the first tensor that each of some modules gets.

    Args:
        model: in eval mode.
        example: one input, shape (1, C, H, W); the values don't matter.
        modules: qualified names.

    Returns:
        None for a module whose input doesn't grow with the batch, mixes its images, or holds them
        in several ways. A network that takes no more than one image has it along axis 0.
    """
    modules = list(modules)
    generator = torch.Generator().manual_seed(0)
    three = torch.randn(3, *example.shape[1:], generator=generator).to(example)
    two = three[[2, 1]]
    try:
        before, after = (_inputs(model, x, modules, lambda t: t.shape) for x in (two, three))
    except Exception:  # code of the user's; whoever trains it finds out
        return dict.fromkeys(modules, ImageRows())
    grows = {name: _growing_axis(before[name], after[name]) for name in modules}
    folded = [
        name
        for name, axis in grows.items()
        if axis is not None and any(shape[axis] != 2 for shape in before[name])
    ]
    if folded:
        few, many = (_inputs(model, x, folded, lambda t: t.detach().clone()) for x in (two, three))
    found: dict[str, ImageRows | None] = {}
    for name, axis in grows.items():
        if axis is None:
            found[name] = None
        elif name in folded:
            calls = zip(few[name], many[name], strict=True)
            found[name] = _same(_order(*pair, axis) for pair in calls)
        else:
            found[name] = ImageRows(axis)
    return found


def _inputs(
    model: nn.Module, x: Tensor, modules: list[str], note: Callable[[Tensor], _Noted]
) -> dict[str, list[_Noted]]:
    """Return what is noted of the first tensor that each module gets, call by call."""
    noted: dict[str, list[_Noted]] = {name: [] for name in modules}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = first_tensor(args, kwargs)
            if given is not None:
                noted[name].append(note(given))

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(watch(name), with_kwargs=True)
        for name in modules
    ]
    devices = [x.device] if x.is_cuda else []
    try:
        # Whatever is random in eval mode must not move the seeds of what follows.
        with torch.random.fork_rng(devices), torch.no_grad():
            model(x.clone())
    finally:
        for handle in handles:
            handle.remove()
    return noted


def _growing_axis(before: list[torch.Size], after: list[torch.Size]) -> int | None:
    """Return the axis that has 2 k entries for two images and 3 k for three, in every call."""
    if not before or len(before) != len(after):
        return None
    axes = set()
    for two, three in zip(before, after, strict=True):
        if len(two) != len(three):
            return None
        changed = [i for i in range(len(two)) if two[i] != three[i]]
        if len(changed) != 1:
            return None
        (axis,) = changed
        if two[axis] % 2 or two[axis] // 2 * 3 != three[axis]:
            return None
        axes.add(axis)
    return axes.pop() if len(axes) == 1 else None


def _order(two: Tensor, three: Tensor, axis: int) -> ImageRows | None:
    """Return the order in which the rows of images (c, b) are those of (a, b, c).

    Where several fit equally, as in a layer that reads zeros, the usual one: image by image.
    """
    rows_per_image = two.shape[axis] // 2

    def difference(rows: ImageRows) -> float:
        few, many = rows.images_first(two, 2), rows.images_first(three, 3)
        return float((few - many[[2, 1]]).abs().max())

    possible = [
        ImageRows(axis, outer)
        for outer in range(1, rows_per_image + 1)
        if rows_per_image % outer == 0
    ]
    best = min(possible, key=difference)
    return best if difference(best) <= _ROUNDING * float(three.abs().max()) else None


def _same(found: Iterable[ImageRows | None]) -> ImageRows | None:
    kinds = set(found)
    return kinds.pop() if len(kinds) == 1 else None

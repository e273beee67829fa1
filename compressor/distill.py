"""What a student hears from its teacher: answers, and feature maps at the ends of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from compressor.errors import InputError
from compressor.losses import attention_losses
from compressor.modes import eval_mode

Plane = tuple[int, int]
"""Height and width of a feature map."""


def teacher_answers(teacher: nn.Module | None, x: Tensor) -> Any:
    """Return the teacher's outputs without gradient, or None without a teacher."""
    if teacher is None:
        return None
    with torch.no_grad():
        return teacher(x)


def stage_ends(model: nn.Module, x: Tensor) -> dict[Plane, str]:
    """Return the module that ends the stage of each size of feature maps, in order of execution.

    Of the modules whose output has a size, it is the one nearest the root, and the last of these: a
    residual stage rather than a layer inside it or inside the block that shrinks its output. Found
    by running the network once in eval mode. Maps of a single pixel say nothing about where.

    Args:
        model: returned as it was.
        x: one input, shape (1, C, H, W), on any device.
    """
    found: dict[Plane, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            plane = _plane(output)
            if plane is None:
                return
            known = found.get(plane)
            nearer = known is None or name.count(".") <= known.count(".")
            if max(plane) > 1 and nearer:
                found[plane] = name

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in _layers(model)]
    with eval_mode(model), torch.no_grad():
        model(x.to(next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return found


def shared_stages(
    student: nn.Module, teacher: nn.Module, x: Tensor
) -> dict[Plane, tuple[str, str]]:
    """Return the modules of student and teacher that end the stages of equal size.

    Raises:
        InputError: no feature map of the teacher is as large as one of the student's.
    """
    mine, theirs = stage_ends(student, x), stage_ends(teacher, x)
    shared = {plane: (mine[plane], theirs[plane]) for plane in mine if plane in theirs}
    if not shared:
        raise InputError(
            "--distill features: no feature maps to compare: those of the network have the sizes "
            f"{_listed(mine)}, those of the teacher {_listed(theirs)}; use --distill logits"
        )
    return shared


class FeaturePairs:
    """Catches the feature maps of student and teacher at the ends of their shared stages.

    Use as a context manager around forward passes of both on the same images; call `losses` after
    each pair of them.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, x: Tensor) -> None:
        self._stages = shared_stages(student, teacher, x)
        self._student, self._teacher = student, teacher
        self._caught: dict[tuple[int, Plane], Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> FeaturePairs:
        for plane, names in self._stages.items():
            for side, (model, name) in enumerate(
                zip((self._student, self._teacher), names, strict=True)
            ):
                hook = self._catch(side, plane)
                self._handles.append(model.get_submodule(name).register_forward_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._caught.clear()

    def losses(self) -> Tensor:
        """Return the attention losses of the images that went through both last, shape (N,)."""
        pairs = [(self._caught[0, plane], self._caught[1, plane]) for plane in self._stages]
        self._caught.clear()
        return attention_losses(pairs)

    def _catch(self, side: int, plane: Plane) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            # One module may serve several sizes, and vectors as well, such as a ReLU.
            if _plane(output) == plane:
                self._caught[side, plane] = output

        return hook


def _plane(output: object) -> Plane | None:
    """Return the size of feature maps (N, C, H, W), None for anything else.

    By attributes alone: where operations are counted (`quantization.calls`), a question must not be
    one of them.
    """
    if not isinstance(output, Tensor) or len(output.shape) != 4:
        return None
    return (output.shape[-2], output.shape[-1])


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules below the root that compute from images, not from weights."""
    makers = {
        id(part)
        for module in model.modules()
        if isinstance(module, ParametrizationList)
        for part in module.modules()
    }
    for name, module in model.named_modules():
        if name and id(module) not in makers:
            yield name, module


def _listed(ends: dict[Plane, str]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in ends) or "none"

"""The network and its teacher, from what the user said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from compress_export.options import JobOptions
from compressor.errors import InputError, OtherClassesError
from compressor.models import build_model
from compressor.user_code import first_line
from compressor.weights import load_weights

if TYPE_CHECKING:
    import torch
    from torch import nn


def architecture_of(model: str, weights: Path | None) -> str:
    """Return what a model is called; a folder of weights says it itself."""
    if weights is not None and weights.is_dir():
        from compressor.saved import read_description

        return read_description(weights, model).architecture
    return model


def load_original(
    options: JobOptions, num_classes: int, say: Callable[[str], None] = lambda line: None
) -> nn.Module:
    """Return the network that is to be compressed, with a new last layer where --new-head says so.

    Args:
        say: is told which layer is new.

    Raises:
        InputError: no such network or weights, or they don't belong together.
    """
    if options.new_head and options.weights is not None:
        return _with_new_head(options.model, options.weights, num_classes, say)
    try:
        return load_network(options.model, options.weights, num_classes)
    except OtherClassesError as error:
        raise InputError(
            f"{error}; give data with the same classes, weights trained on this data, or "
            "--new-head to train a new last layer"
        ) from error


def _with_new_head(
    model: str, weights: Path, num_classes: int, say: Callable[[str], None]
) -> nn.Module:
    from compressor.head import find_head
    from compressor.saved import load_model

    head = find_head(architecture_of(model, weights), num_classes)
    if weights.is_dir():
        network = load_model(weights, head, code=model)
    else:
        network = build_model(model, num_classes)
        load_weights(network, weights, head)
    say(f"weights: the last layer is new ({', '.join(head.layers)}), for {num_classes} classes")
    return network.eval()


def load_network(model: str, weights: Path | None, num_classes: int) -> nn.Module:
    """Build a network and load its weights; a folder holds a network that was slimmed before.

    Raises:
        OtherClassesError: weights that fit but for the number of classes.
        InputError: no such network or weights, or they don't belong together.
    """
    if weights is not None and weights.is_dir():
        from compressor.saved import load_model, read_description

        saved = read_description(weights, model).num_classes
        if saved != num_classes:
            raise OtherClassesError(
                f"weights {weights}: the network has {saved} classes, the data has {num_classes}"
            )
        return load_model(weights, code=model)
    network = build_model(model, num_classes)
    if weights is not None:
        load_weights(network, weights)
    return network.eval()


def load_teacher(
    options: JobOptions,
    network: nn.Module,
    architecture: str,
    num_classes: int,
    example: torch.Tensor,
) -> nn.Module | None:
    """Return the network that --teacher names; None where the original teaches, or nothing does.

    Args:
        network: the original.
        architecture: what it is called; the teacher is called the same unless it says otherwise.
        example: one input, shape (1, C, H, W).

    Raises:
        InputError: it can't be loaded, has other classes, takes other images, or has no feature
            maps where those are to be taught.
    """
    if not options.distills:
        return None
    teacher = None
    if options.teacher is not None:
        _refuse_a_second_name(options.teacher, options.teacher_model)
        name = options.teacher_model or architecture
        try:
            teacher = load_network(name, options.teacher, num_classes)
        except OtherClassesError as error:
            raise InputError(f"--teacher: {error}; it has to know the same classes") from error
        _check_answer(teacher, options.teacher, network, example)
    if options.distill == "features":
        from compressor.distill import shared_stages

        shared_stages(network, teacher or network, example)
    return teacher


def _refuse_a_second_name(path: Path, name: str | None) -> None:
    """A folder's name is said again only to confirm the code that it names."""
    if name is None or not path.is_dir():
        return
    if ":" not in name or name != architecture_of(name, path):
        raise InputError(
            f"--teacher-model {name}: the folder {path} says itself which network it holds; "
            "leave --teacher-model out"
        )


def _check_answer(
    teacher: nn.Module, path: Path, network: nn.Module, example: torch.Tensor
) -> None:
    """Raise InputError where a teacher's answer to an image isn't of the network's shape."""
    import torch

    from compressor.objective import tensors_of

    size = f"{example.shape[-1]}x{example.shape[-2]}"
    try:
        with torch.no_grad():
            answer = tensors_of(teacher(example))
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"--teacher {path}: it doesn't take images of {size} pixels, as the network does: "
            f"{first_line(error)}"
        ) from error
    with torch.no_grad():
        wanted = tensors_of(network(example))
    found, needed = (" and ".join(str(tuple(t.shape)) for t in ts) for ts in (answer, wanted))
    if found != needed:
        raise InputError(
            f"--teacher {path}: its answer to one image has the shape {found or 'of no tensor'}, "
            f"that of the network has {needed}"
        )

"""Whether a state fits a network, and if not, what to tell the user about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from compressor.models import build_model, builtin_models

State = Mapping[str, torch.Tensor]

# Networks that people often hold weights of, tried beside the built-in ones.
_POPULAR = (
    "resnet18", "resnet34", "resnet50", "vgg16_bn", "vgg16", "mobilenet_v2", "mobilenet_v3_small",
    "efficientnet_b0", "densenet121", "shufflenet_v2_x1_0",
)  # fmt: skip


@dataclass(frozen=True)
class Misfit:
    """Names that keep a state from fitting a network, in the order of the network or the file.

    Attributes:
        missing: the network has them, the file does not.
        unexpected: the file has them, the network does not.
        reshaped: both have them, in different shapes.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)


def compare(wanted: State, given: State) -> Misfit:
    """Compare names and shapes; batch norm's `num_batches_tracked` may be missing (old files)."""
    return Misfit(
        missing=tuple(
            k for k in wanted if k not in given and not k.endswith("num_batches_tracked")
        ),
        unexpected=tuple(k for k in given if k not in wanted),
        reshaped=tuple(k for k in wanted if k in given and given[k].shape != wanted[k].shape),
    )


def describe_misfit(misfit: Misfit, wanted: State, given: State) -> str:
    """One line: what differs, and the network that fits better where one is known."""
    parts = []
    if misfit.missing:
        parts.append(f"{len(misfit.missing)} tensors missing (first {misfit.missing[0]})")
    if misfit.unexpected:
        parts.append(f"{len(misfit.unexpected)} tensors unexpected (first {misfit.unexpected[0]})")
    if misfit.reshaped:
        key = misfit.reshaped[0]
        parts.append(
            f"{len(misfit.reshaped)} tensors of another shape (first {key}: "
            f"{_shape(given[key])} in the file, {_shape(wanted[key])} in the model)"
        )
    better = better_model(wanted, given)
    hint = f"; they fit the model {better!r}" if better else ""
    return f"weights of another model: {', '.join(parts)}{hint}"


def better_model(wanted: State, given: State) -> str | None:
    """The known network whose tensors, apart from the last layer's, are all in the file."""
    best, best_share = None, _matching_share(wanted, given)
    for name in (*builtin_models(), *(f"torchvision:{name}" for name in _POPULAR)):
        with torch.device("meta"):  # shapes only: nothing is allocated or initialised
            candidate = build_model(name, num_classes=10).state_dict()
        misfit = compare(candidate, given)
        only_classes = not misfit or class_counts(misfit, candidate, given) is not None
        share = _matching_share(candidate, given)
        if only_classes and share > best_share:
            best, best_share = name, share
    return best


def class_counts(misfit: Misfit, wanted: State, given: State) -> tuple[str, int, int] | None:
    """(layers, classes in the file, classes wanted) where nothing but the number of outputs
    differs: of one layer, or of several heads alike."""
    if misfit.missing or misfit.unexpected or not misfit.reshaped:
        return None
    layers = dict.fromkeys(key.rpartition(".")[0] for key in misfit.reshaped)
    counts = set()
    for key in misfit.reshaped:
        theirs, ours = given[key].shape, wanted[key].shape
        if theirs[1:] != ours[1:] or not len(theirs):
            return None
        counts.add((theirs[0], ours[0]))
    if len(counts) != 1:
        return None
    in_file, in_data = counts.pop()
    return ", ".join(layers), in_file, in_data


def _matching_share(wanted: State, given: State) -> float:
    """Share of all names, in either, that both have in the same shape."""
    both = sum(1 for k in wanted if k in given and given[k].shape == wanted[k].shape)
    return both / len(set(wanted) | set(given))


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"

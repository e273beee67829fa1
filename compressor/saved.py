"""Save a slimmed network without pickle: weights as safetensors, its shape as a small description.

    save_model(model, "resnet20", num_classes=10, folder=Path("slim"))
    model = load_model(Path("slim"))

The description names the architecture and lists what differs from it; parameters take their shapes
from the weights file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import InputError
from compressor.head import Head
from compressor.models import build_model
from compressor.placeholders import Constant, Nothing, Window
from compressor.user_code import first_line
from compressor.whole_files import whole_file

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
SCHEMA_VERSION = 1

_STAND_INS = {"Constant": Constant, "Nothing": Nothing, "Identity": nn.Identity}


def save_model(model: nn.Module, architecture: str, num_classes: int, folder: Path) -> None:
    """Write a (slimmed) network into a folder.

    Args:
        model: the network, made by `build_model(architecture, num_classes)` and perhaps slimmed.
        architecture: name or `package.module:factory` as `build_model` takes it.
        num_classes: outputs of the unslimmed architecture.
        folder: made where missing; gets model.safetensors and model.json.
    """
    from safetensors.torch import save_file

    # Copies, since safetensors refuses tensors that share memory (a module under two names).
    weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    with whole_file(folder / WEIGHTS_FILE) as unfinished:
        save_file(weights, unfinished)
    description = {
        "schema_version": SCHEMA_VERSION,
        "architecture": architecture,
        "num_classes": num_classes,
        "edits": _edits(model, build_model(architecture, num_classes)),
    }
    text = json.dumps(description, indent=1)
    with whole_file(folder / DESCRIPTION_FILE) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Description:
    """What model.json says.

    Attributes:
        architecture: as `build_model` takes it.
        num_classes: outputs of the network.
        edits: module name -> what differs from the architecture.
    """

    architecture: str
    num_classes: int
    edits: dict[str, dict[str, Any]]


def read_description(folder: Path) -> Description:
    """Read model.json.

    Raises:
        InputError: it is missing or damaged, or another version's.
    """
    path = folder / DESCRIPTION_FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        version = entries["schema_version"]
        found = Description(entries["architecture"], entries["num_classes"], entries["edits"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} holds no readable saved model: {first_line(error)}") from error
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version is {version}, this version reads {SCHEMA_VERSION}"
        )
    return found


def load_model(folder: Path, new_head: Head | None = None) -> nn.Module:
    """Rebuild a network that `save_model` wrote, in eval mode.

    Args:
        new_head: of the network's architecture; replaces the saved one by fresh, untrained weights
            for the channels that the slimmed network has left.

    Raises:
        InputError: a file is missing or damaged, or the two don't belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = read_description(folder)
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} holds no readable saved model: {first_line(error)}") from error
    num_classes = description.num_classes if new_head is None else new_head.num_classes
    model = build_model(description.architecture, num_classes)
    try:
        for name, edit in description.edits.items():
            _apply(model, name, edit)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / DESCRIPTION_FILE} is damaged: {first_line(error)}") from error
    if new_head is not None:
        weights |= _fresh(model, new_head, weights)
    _set_tensors(model, weights, folder)
    _check_widths(model, folder)
    return model.eval()


def _edits(model: nn.Module, original: nn.Module) -> dict[str, dict[str, Any]]:
    modules, edits = dict(original.named_modules()), {}
    for name, module in model.named_modules():
        if type(module).__name__ in _STAND_INS and type(module) is not type(modules.get(name)):
            edits[name] = _describe(module)
        elif name in modules:
            now, before = _integers(module), _integers(modules[name])
            changed = {key: value for key, value in now.items() if before.get(key) != value}
            if changed:
                edits[name] = changed
    return edits


def _integers(module: nn.Module) -> dict[str, Any]:
    """Return a module's integers, and its lists and tuples of them: widths are among them."""
    return {name: value for name, value in vars(module).items() if _is_integral(value)}


def _like(known: Any, value: Any) -> Any:
    """Return a value of the description as the kind that an attribute has: int, list or tuple."""
    return int(value) if type(known) is int else type(known)(int(entry) for entry in value)


def _is_integral(value: Any) -> bool:
    if type(value) in (list, tuple):
        return bool(value) and all(type(entry) is int for entry in value)
    return type(value) is int


def _describe(module: nn.Module) -> dict[str, Any]:
    described: dict[str, Any] = {"replaced_by": type(module).__name__}
    window = getattr(module, "window", None)
    if isinstance(window, Window):
        described["window"] = {name: list(value) for name, value in vars(window).items()}
    if isinstance(module, Constant):
        described["full_size"] = module.full_size
    return described


def _apply(model: nn.Module, name: str, edit: dict[str, Any]) -> None:
    if "replaced_by" not in edit:
        module = model.get_submodule(name)
        known = _integers(module)
        for attribute, value in edit.items():
            if attribute not in known:
                raise ValueError(f"'{name}' has no width called '{attribute}'")
            setattr(module, attribute, _like(known[attribute], value))
        return
    window = (
        Window(**{k: tuple(v) for k, v in edit["window"].items()}) if "window" in edit else None
    )
    kind = edit["replaced_by"]
    if kind == "Constant":
        new: nn.Module = Constant(torch.zeros(1), window, bool(edit["full_size"]))
    else:
        new = Nothing(window) if kind == "Nothing" else nn.Identity()
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _fresh(
    model: nn.Module, head: Head, weights: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the model's own tensors of a head, (classes, ...), as narrow as those saved."""
    state = model.state_dict()
    return {
        name: state[name][:, *(slice(size) for size in weights[name].shape[1:])]
        for name in head.tensors
        if name in weights
    }


def _set_tensors(model: nn.Module, weights: dict[str, torch.Tensor], folder: Path) -> None:
    expected = set(model.state_dict())
    if expected != set(weights):
        odd = sorted(expected ^ set(weights))
        raise InputError(
            f"{folder}: description and weights don't belong together, {len(odd)} tensors differ, "
            f"first '{odd[0]}'"
        )
    for name, value in weights.items():
        parent, _, child = name.rpartition(".")
        module = model.get_submodule(parent)
        old = getattr(module, child)
        # A copy, since tensors inside the file are not aligned, which changes the last bits.
        value = value.clone()
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(value, requires_grad=old.requires_grad)
        setattr(module, child, value)


def _check_widths(model: nn.Module, folder: Path) -> None:
    """Raise InputError where a layer's weight hasn't the shape that its integers say."""
    for name, module in model.named_modules():
        expected: tuple[int, ...] | None = None
        if isinstance(module, nn.modules.conv._ConvTransposeNd):
            expected = (module.in_channels, module.out_channels // module.groups)
        elif isinstance(module, nn.modules.conv._ConvNd):
            expected = (module.out_channels, module.in_channels // module.groups)
        elif isinstance(module, nn.Linear):
            expected = (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            expected = (module.num_features,)
        if expected is not None and module.weight.shape[: len(expected)] != expected:
            raise InputError(
                f"{folder}: description and weights don't belong together, '{name}' is described "
                f"as {expected}, its weight is {tuple(module.weight.shape)}"
            )

"""Save a slimmed network without pickle: weights as safetensors, its shape as a small description.

    save_model(model, "resnet20", num_classes=10, folder=Path("slim"))
    model = load_model(Path("slim"))

The description names the architecture and lists what differs from it; parameters take their shapes
from the weights file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import InputError
from compressor.head import Head
from compressor.models import build_model
from compressor.placeholders import Constant, Nothing, Window
from compressor.tied import share, shared_parameters
from compressor.user_code import first_line
from compressor.whole_files import whole_file

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
SCHEMA_VERSION = 1
MOST_CLASSES = 2**17
_MOST_DESCRIPTION_BYTES = 2**24
_MOST_GROWTH = 8
_LEAST_BOUND = 64

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

    original = _without_memory(architecture, num_classes)
    tensors = {**model.state_dict(), **_cut_unnoticed(model, original)}
    with whole_file(folder / WEIGHTS_FILE) as unfinished:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        save_file(_apart(tensors), unfinished)
        unfinished.chmod(mode)  # safetensors leaves a file that others can't read
    description = {
        "schema_version": SCHEMA_VERSION,
        "architecture": architecture,
        "num_classes": num_classes,
        "edits": _edits(model, original),
    }
    text = json.dumps(description, indent=1)
    with whole_file(folder / DESCRIPTION_FILE) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def _cut_unnoticed(model: nn.Module, original: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that a state dict leaves out, and that the architecture would make too wide."""
    before = _not_persistent(original)
    return {
        name: buffer
        for name, buffer in _not_persistent(model).items()
        if name in before and buffer.shape != before[name].shape
    }


def _not_persistent(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{module_name}.{name}" if module_name else name: buffer
        for module_name, module in model.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name in module._non_persistent_buffers_set
    }


def _apart(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of tensors that share memory (a module under two names): safetensors refuses them."""
    seen: set[int] = set()
    found = {}
    for name, value in state.items():
        storage = value.untyped_storage()
        whole = value.is_contiguous() and storage.nbytes() == value.nbytes
        alone = whole and storage.data_ptr() not in seen
        found[name] = value if alone else value.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
    return found


def _without_memory(architecture: str, num_classes: int) -> nn.Module:
    """The architecture to compare with, of which nothing but names and integers is wanted."""
    try:
        with torch.device("meta"):
            return build_model(architecture, num_classes)
    except Exception:  # code of the user's that needs the numbers it starts with
        return build_model(architecture, num_classes)


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


def read_description(folder: Path, code: str | None = None) -> Description:
    """Read model.json.

    Args:
        code: the `package.module:factory` that the folder may name; without it only one of a module
            that is imported already.

    Raises:
        InputError: it is missing or damaged, another version's, or names other code.
    """
    path = folder / DESCRIPTION_FILE
    try:
        with path.open("rb") as file:
            entries = json.loads(file.read(_MOST_DESCRIPTION_BYTES))
        version = entries["schema_version"]
        found = Description(entries["architecture"], entries["num_classes"], entries["edits"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder} holds no readable saved model: {first_line(error)}") from error
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version is {str(version)[:80]}, this version reads {SCHEMA_VERSION}"
        )
    kinds = (type(found.architecture), type(found.num_classes), type(found.edits))
    if kinds != (str, int, dict) or not 1 <= found.num_classes <= MOST_CLASSES:
        raise InputError(
            f"{path} is damaged: wanted are the name of an architecture, 1 to {MOST_CLASSES} "
            "classes, and edits by module"
        )
    _refuse_unknown_code(found.architecture, folder, code)
    return found


def _refuse_unknown_code(architecture: str, folder: Path, code: str | None) -> None:
    """A folder may come from elsewhere: the code that it names has to be the user's choice."""
    module, colon, _ = architecture.partition(":")
    if not colon or module in ("torchvision", "timm") or module in sys.modules:
        return
    if architecture != code:
        raise InputError(
            f"{folder}: its network is made by code, {architecture[:200]}, which a folder alone "
            f"doesn't start; if you know it, say so with --model {architecture[:200]} (for a "
            "teacher --teacher-model, in Python load_model(..., code=...) or an import of it)"
        )


def load_model(folder: Path, new_head: Head | None = None, *, code: str | None = None) -> nn.Module:
    """Rebuild a network that `save_model` wrote, in eval mode.

    Args:
        new_head: of the network's architecture; replaces the saved one by fresh, untrained weights
            for the channels that the slimmed network has left.
        code: as for `read_description`.

    Raises:
        InputError: a file is missing or damaged, the two don't belong together, or the folder names
            other code.
    """
    from safetensors.torch import load_file

    description = read_description(folder, code)
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # damaged bytes surface as nearly any kind of error
        raise InputError(f"{folder} holds no readable saved model: {first_line(error)}") from error
    num_classes = description.num_classes if new_head is None else new_head.num_classes
    model = build_model(description.architecture, num_classes)
    try:
        for name, edit in description.edits.items():
            _apply(model, name, edit)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
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
    """Return a value of the description as the kind that an attribute has: int, list or tuple.

    Raises ValueError for numbers far beyond the attribute's own: slimming makes none, and a padding
    of a million fills the memory.
    """
    own = [known] if type(known) is int else list(known)
    given = [int(entry) for entry in ([value] if type(known) is int else value)]
    bound = _MOST_GROWTH * max(_LEAST_BOUND, *map(abs, own))
    if any(abs(number) > bound for number in given):
        raise ValueError(f"a number beyond {bound}, where the architecture has {known}")
    return given[0] if type(known) is int else type(known)(given)


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
    module = model.get_submodule(name)
    if "replaced_by" not in edit:
        known = _integers(module)
        for attribute, value in edit.items():
            if attribute not in known:
                raise ValueError(f"'{name}' has no width called '{attribute}'")
            setattr(module, attribute, _like(known[attribute], value))
        return
    window = _window(edit["window"]) if "window" in edit else None
    kind = edit["replaced_by"]
    if kind == "Constant":
        new: nn.Module = Constant(torch.zeros(1), window, bool(edit["full_size"]))
    elif kind in _STAND_INS:
        new = Nothing(window) if kind == "Nothing" else nn.Identity()
    else:
        raise ValueError(f"'{name}' is replaced by an unknown kind of module")
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _window(entry: dict[str, Any]) -> Window:
    """Raises ValueError for what is no window of a convolution."""
    window = Window(**{key: _like((0,), value) for key, value in entry.items()})
    if len({len(axes) for axes in vars(window).values()}) != 1 or min(*window.stride, 1) < 1:
        raise ValueError("the axes of a window don't agree")
    return window


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
    expected |= set(weights) & set(_not_persistent(model))
    if expected != set(weights):
        odd = sorted(expected ^ set(weights))
        raise InputError(
            f"{folder}: description and weights don't belong together, {len(odd)} tensors differ, "
            f"first '{odd[0]}'"
        )
    owners = shared_parameters(model)
    for name, value in weights.items():
        parent, _, child = name.rpartition(".")
        module = model.get_submodule(parent)
        old = getattr(module, child)
        if value.is_floating_point() != old.is_floating_point():
            raise InputError(f"{folder}: '{name}' is {value.dtype}, which the network can't hold")
        # A copy, since tensors inside the file are not aligned, which changes the last bits.
        value = value.clone()
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(value, requires_grad=old.requires_grad)
        setattr(module, child, value)
    share(model, owners)


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

"""Load trained weights into a network: .pt, .pth and .th without running their code, .safetensors.

Nothing is loaded unless everything fits: a file that does not leaves the network as it was.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import InputError, OtherClassesError
from compressor.head import Head
from compressor.state_fit import class_counts, compare, describe_misfit
from compressor.user_code import first_line

SUFFIXES = (".pt", ".pth", ".th", ".safetensors")
_NESTING = ("state_dict", "model", "model_state", "model_state_dict", "net")
_MOST_NESTED = 8
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
# Heads used only while training, and what profilers and weight averaging leave in a state.
_IGNORED = re.compile(r"^(AuxLogits|aux1|aux2)\.|^n_averaged$|(^|\.)total_(ops|params)$")


def load_weights(model: nn.Module, path: Path | str, new_head: Head | None = None) -> None:
    """Copy the weights of a file into `model`, in the model's own number format and device.

    States nested under `state_dict`, `model`, `model_state`, `model_state_dict` or `net` are found,
    and `module.` and `_orig_mod.` prefixes are dropped.

    Args:
        new_head: keeps the tensors that `model` has, whatever the file holds in their place.

    Raises:
        OtherClassesError: weights that fit but for the number of classes.
        InputError: no such file, unknown suffix, damaged file, a file that needs code to be read,
            weights of another network.
    """
    path = Path(path)
    own = frozenset(() if new_head is None else new_head.tensors)
    wanted = model.state_dict()
    state = _without_prefixes(read_state(path), wanted)
    state = {
        key: tensor
        for key, tensor in state.items()
        if key not in own and (key in wanted or not _IGNORED.search(key))
    }
    wanted = {key: tensor for key, tensor in wanted.items() if key not in own}
    _check_fit(path, wanted, state)
    spoiled = [
        key
        for key, tensor in state.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if spoiled:
        raise InputError(
            f"weights {path}: {len(spoiled)} tensors hold NaN or infinite numbers, the first is "
            f"{spoiled[0]}; the training that made them probably diverged"
        )
    model.load_state_dict(state, strict=False)  # strict but for batch norm's optional counters


def _check_fit(
    path: Path, wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> None:
    misfit = compare(wanted, state)
    counts = class_counts(misfit, wanted, state)
    if counts is not None:
        layer, in_file, in_data = counts
        raise OtherClassesError(
            f"weights {path}: its last layer ({layer}) has {in_file} classes, the data has "
            f"{in_data}"
        )
    if misfit:
        raise InputError(f"weights {path}: {describe_misfit(misfit, wanted, state)}")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, as stored; for errors see `load_weights`."""
    _check_readable(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = _innermost_state(content)
    if not state:
        raise InputError(
            f"weights {path}: no tensors by name in this file; expected a state_dict, "
            f"also under one of the keys {', '.join(_NESTING)}"
        )
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(
                f"weights {path}: {key} is sparse, quantized or without values; save plain tensors"
            )
    return state


def _check_readable(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise InputError(f"weights {path}: suffix must be one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"weights {path}: this is a folder, a file is needed")
    if not path.exists():
        raise InputError(f"weights {path}: no such file; {_why_missing(path)}")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"weights {path}: can't be read ({error.strerror})") from error
    if not head:
        raise InputError(f"weights {path}: the file is empty; was its download interrupted?")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(
            f"weights {path}: a Git LFS pointer, not the weights; fetch them with 'git lfs pull'"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise InputError(f"weights {path}: a web page, not weights; the download went wrong")


def _why_missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        where = "" if path.is_absolute() else f", looked for from {Path.cwd()}"
        return f"its folder {folder} doesn't exist either{where}"
    others = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)
    if not others:
        return f"{folder.resolve()} holds no weights at all"
    return f"{folder.resolve()} holds {', '.join(others[:5])}{' ...' if len(others) > 5 else ''}"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # as in _read_torch
        raise InputError(_damaged(path, error)) from error


def _read_torch(path: Path) -> Any:
    try:
        _refuse_bomb(path)
        mapped = zipfile.is_zipfile(path)  # files of torch before 1.6 are none
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global:?|class) ([\w.]+\.[\w.]+)", str(error))
        if found is None:
            raise InputError(_damaged(path, error)) from error
        raise InputError(
            f"weights {path}: refused, since reading it would run code ({found.group(1)}); save "
            "only the tensors: torch.save(model.state_dict(), path)"
        ) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise InputError(
                f"weights {path}: a TorchScript program; save torch.jit.load(path).state_dict()"
            ) from error
        raise InputError(_damaged(path, error)) from error
    except Exception as error:  # damaged bytes surface as nearly any kind of error
        raise InputError(_damaged(path, error)) from error


def _refuse_bomb(path: Path) -> None:
    """Raise ValueError for an archive that unpacks to more than itself: torch.save stores."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked_bytes = sum(member.file_size for member in archive.infolist())
    if unpacked_bytes > path.stat().st_size:
        raise ValueError(f"it would unpack to {unpacked_bytes} bytes")


def _damaged(path: Path, error: BaseException) -> str:
    size_mib = path.stat().st_size / 2**20
    reason = first_line(error)
    if len(reason) > 120:
        reason = type(error).__name__
    return (
        f"weights {path}: truncated or damaged ({size_mib:.2f} MiB; {reason}); "
        "compare its size or checksum with the source and fetch it again"
    )


def _innermost_state(content: Any) -> dict[str, torch.Tensor]:
    """The tensors of a state, however deep it is nested; empty where there are none."""
    for _ in range(_MOST_NESTED):
        inner = content if isinstance(content, Mapping) else {}
        nested = [inner[key] for key in _NESTING if isinstance(inner.get(key), Mapping)]
        if not nested:
            return {
                key: value
                for key, value in inner.items()
                if isinstance(key, str) and isinstance(value, torch.Tensor)
            }
        content = nested[0]
    return {}


def _without_prefixes(
    state: dict[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Drop wrappers' prefixes, but not where the network has a submodule of that name itself."""
    prefixes = [p for p in _PREFIXES if not any(key.startswith(p) for key in wanted)]
    return {_strip(key, prefixes): tensor for key, tensor in state.items()}


def _strip(key: str, prefixes: list[str]) -> str:
    shorter = key
    for prefix in prefixes:
        shorter = shorter.removeprefix(prefix)
    return shorter if shorter == key else _strip(shorter, prefixes)

"""Let a network's large weights lie in files instead of memory, for as long as it is exported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.onnx_file import LARGE_BYTES

if TYPE_CHECKING:
    import torch
    from torch import nn


def map_weights(model: nn.Module, folder: Path) -> None:
    """Move large parameters into files and map them; their numbers and layouts stay.

    The kernel drops mapped pages when memory is short and reads them again, so that what the
    converters make of the weights has the memory to itself. Each file has no name any more once
    it is mapped: its room on the disk is free again when its parameter is.

    Args:
        model: changed in place. Parameters that are mapped already or on another device stay.
        folder: on a disk with room for the weights.

    Raises:
        OSError: the disk is full.
    """
    for parameter in model.parameters():
        storage = parameter.untyped_storage()
        in_memory = parameter.device.type == "cpu" and storage.filename is None
        if in_memory and parameter.nbytes >= LARGE_BYTES:
            values = parameter.data
            mapped = values.new_empty(0).set_(
                _mapped(storage, folder), values.storage_offset(), values.shape, values.stride()
            )
            parameter.data = mapped


def _mapped(storage: torch.UntypedStorage, folder: Path) -> torch.UntypedStorage:
    """A copy of a storage whose bytes lie in a file."""
    import torch

    with tempfile.NamedTemporaryFile(dir=folder, prefix=".weights-") as file:
        # A file with holes would end the process where the disk is full.
        os.posix_fallocate(file.fileno(), 0, storage.nbytes())
        mapped = torch.UntypedStorage.from_file(file.name, shared=True, nbytes=storage.nbytes())
        return mapped.copy_(storage)

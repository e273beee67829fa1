"""What happens to pixels before the network sees them; the same numbers go into the manifest."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.options import LEAST_SIZE, MOST_SIZE
from compress_export.whole_files import write_whole
from compressor.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preprocessing:
    """Square RGB input: `(pixel * scale - mean) / std` per channel.

    Attributes:
        size: height and width in pixels.
        mean, std: per RGB channel, of images already multiplied by `scale`.
        scale: factor from a uint8 pixel to the range that `mean` and `std` speak of.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"input size must be at least 1 pixel, got {self.size}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise InputError(f"{name} needs three numbers (red, green, blue), got {values}")
        if min(self.std) <= 0:
            raise InputError(f"std must be above 0 in every channel, got {self.std}")
        brightest = 255 * self.scale
        if max(map(abs, self.mean)) > brightest:
            raise InputError(
                f"mean {self.mean} lies outside the pixels' own range, 0 to {brightest:g}; "
                "was it stated for pixels of 0 to 255? Then divide it and std by 255"
            )

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> float32 (B, 3, H, W), on the tensor's own device."""
        import torch

        std = torch.tensor(self.std, dtype=torch.float64)
        factor = (self.scale / std).to(pixels.device, torch.float32).view(1, 3, 1, 1)
        offset = (torch.tensor(self.mean, dtype=torch.float64) / std).to(pixels.device)
        return pixels.float().mul_(factor).sub_(offset.float().view(1, 3, 1, 1))

    def to_json(self) -> dict[str, Any]:
        """The manifest's `preprocessing` entry."""
        return {
            "resize": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": self.scale,
            "channel_order": "RGB",
        }


_FILE = "input.json"
_MOST_BYTES = 2**16


def save_input(preprocessing: Preprocessing, folder: Path) -> None:
    """Note beside a saved network what it was trained with."""
    entry = {name: getattr(preprocessing, name) for name in ("size", "mean", "std")}
    write_whole(folder / _FILE, json.dumps(entry) + "\n")


def saved_input(folder: Path) -> Preprocessing | None:
    """Return what a saved network was trained with; None where the folder doesn't say.

    Raises:
        InputError: it says nonsense.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            entry = json.loads(file.read(_MOST_BYTES))
        size = int(entry["size"])
        if not LEAST_SIZE <= size <= MOST_SIZE:
            raise ValueError(f"{size} pixels")
        return Preprocessing(size, _triple(entry["mean"]), _triple(entry["std"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}): wanted are size, mean and std; without "
            "the file, --input-size, --mean and --std say it"
        ) from error


def _triple(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    if not all(math.isfinite(value) for value in (red, green, blue)):
        raise ValueError("not finite")
    return red, green, blue

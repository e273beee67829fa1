"""What happens to pixels before the network sees them; the same numbers go into the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

"""The calibration samples: one stream of normalised batches, the same for every format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exporters.errors import CalibrationError


@dataclass(frozen=True)
class Calibration:
    """A stream of calibration batches that can be started again and is never held whole.

    Attributes:
        batches: starts the stream anew; yields float32 NCHW batches [b, 3, H, W], normalised
            as the model wants them.
    """

    batches: Callable[[], Iterator[np.ndarray]]

    @cached_property
    def count(self) -> int:
        """Number of samples, found by running through the stream once."""
        return sum(len(batch) for batch in self.batches())

    def checked(self, input_shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Yield the batches, refusing what the model can't take.

        Args:
            input_shape: (C, H, W) of one sample.

        Raises:
            CalibrationError: no samples, another shape or dtype, or values that aren't finite.
        """
        empty = True
        for batch in self.batches():
            if batch.dtype != np.float32 or batch.shape[1:] != tuple(input_shape):
                raise CalibrationError(
                    f"calibration batch is {batch.dtype} {list(batch.shape)}, "
                    f"the model takes float32 [b, {', '.join(map(str, input_shape))}]"
                )
            if not np.isfinite(batch).all():
                raise CalibrationError(
                    "calibration batch holds NaN or infinity; check mean and std"
                )
            empty = empty and len(batch) == 0
            yield batch
        if empty:
            raise CalibrationError("no calibration samples; the training split may be empty")

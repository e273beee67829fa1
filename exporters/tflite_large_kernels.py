"""Convolutions of more than 32 MiB, which ai-edge-quantizer 0.10 can't round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNKED_BYTES = 32 << 20
"""Beyond it, the quantizer makes two axes of the tensor, but not of the scales."""


@contextmanager
def large_kernels_rounded() -> Iterator[None]:
    """While it is open, the quantizer gets such weights as a matrix, a row an output channel."""
    from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as module

    own = module.uniform_quantize

    def uniform_quantize(tensor_data: NDArray[Any], params: Any, *rest: Any, **more: Any) -> Any:
        by_rows = params.scale.size == 1 or params.scale.size == len(params.scale)
        if tensor_data.ndim <= 2 or tensor_data.nbytes <= _CHUNKED_BYTES or not by_rows:
            return own(tensor_data, params, *rest, **more)
        rows = replace(
            params, scale=params.scale.reshape(-1, 1), zero_point=params.zero_point.reshape(-1, 1)
        )
        matrix = tensor_data.reshape(len(tensor_data), -1)
        return np.reshape(own(matrix, rows, *rest, **more), tensor_data.shape)

    module.uniform_quantize = uniform_quantize
    try:
        yield
    finally:
        module.uniform_quantize = own

"""How indices are best stored, and which clustering leaves the least error.

    python -m benchmarks.codebook.coding WORK/baselines/resnet20

Clusters the weights of a saved network, without any training, and writes
benchmarks/results/codebook_coding.json, from which `benchmarks.codebook.page` makes two tables.
"""

from __future__ import annotations

import argparse
import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from benchmarks.codebook.run import ENTRIES, FOLDER
from compressor.codebook.fitting import FITS, Codebook
from compressor.saved import load_model

FILE = "codebook_coding.json"
CODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "zlib": lambda data: zlib.compress(data, 9),
    "bz2": lambda data: bz2.compress(data, 9),
    "xz": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
}


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", type=Path, help="folder of a saved network")
    parser.add_argument("--entries", nargs="+", type=int, default=list(ENTRIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    layers = weights_of(load_model(arguments.network))
    found = {
        "network": arguments.network.name,
        "weights": sum(len(layer) for layer in layers),
        "seed": arguments.seed,
        "entries": [figures(layers, n, arguments.seed) for n in arguments.entries],
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def weights_of(model: nn.Module) -> list[NDArray[np.float64]]:
    """Return the weights of every convolution and linear layer, each flat."""
    return [
        module.weight.detach().numpy().ravel().astype(np.float64)
        for module in model.modules()
        if isinstance(module, _ConvNd | nn.Linear) and isinstance(module.weight, Tensor)
    ]


def figures(layers: Sequence[NDArray[np.float64]], entries: int, seed: int) -> dict[str, Any]:
    """Return squared errors by fit, and bytes of k-means' indices by form and coder."""
    by_fit = {name: [fit(layer, entries, seed) for layer in layers] for name, fit in FITS.items()}
    indices = [book.indices for book in by_fit["kmeans"]]
    bits = max(1, int(np.ceil(np.log2(entries))))
    forms = {
        "packed": b"".join(packed(part, bits) for part in indices),
        "bytewise": b"".join(part.astype(np.uint8).tobytes() for part in indices),
    }
    return {
        "entries": entries,
        "squared_error": {
            name: sum(
                _squared_error(layer, book) for layer, book in zip(layers, books, strict=True)
            )
            for name, books in by_fit.items()
        },
        "entropy_bytes": {
            name: sum(entropy_bits(book.indices) for book in books) / 8
            for name, books in by_fit.items()
        },
        "index_bits": bits,
        "bytes": {
            form: {"plain": len(data)} | {name: len(code(data)) for name, code in CODERS.items()}
            for form, data in forms.items()
        },
    }


def packed(indices: NDArray[np.int64], bits: int) -> bytes:
    """Return indices one after the other without gaps, the first in the lowest bits."""
    planes = (indices[:, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8).ravel(), bitorder="little").tobytes()


def entropy_bits(indices: NDArray[np.int64]) -> float:
    """Return the bits that the indices take at least if each is coded by itself."""
    counts = np.bincount(indices)
    shares = counts[counts > 0] / len(indices)
    return float(-(shares * np.log2(shares)).sum() * len(indices))


def _squared_error(layer: NDArray[np.float64], book: Codebook) -> float:
    return float(np.square(layer - book.centroids[book.indices]).sum())


if __name__ == "__main__":
    main()

"""NNCF's post-training quantization, run by an interpreter that has NNCF and nothing of ours.

    python nncf_child.py FLOAT.onnx SAMPLES.npy OUT.onnx

SAMPLES.npy holds float32 (N, 3, H, W), normalised. Nothing is told to `nncf.quantize` but the data.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(float_path: str, samples_path: str, path: str) -> None:
    """Quantize one file."""
    import nncf  # type: ignore[import-not-found]
    import numpy as np
    import onnx

    model = onnx.load(float_path)
    name = model.graph.input[0].name
    samples = np.load(Path(samples_path), allow_pickle=False)
    dataset = nncf.Dataset(samples, lambda image: {name: image[None]})
    onnx.save(nncf.quantize(model, dataset), path)
    print(f"nncf {nncf.__version__}, onnx {onnx.__version__}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Let one runtime answer all samples: python compat_answers.py BUNDLE FILE SAMPLES ANSWERS.npy

Runs in an environment that holds numpy and a single runtime; `bench_compat.py` starts it there with
the checkout on PYTHONPATH. Saves the predicted classes, int64 (N,), and prints the runtime as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime_bench.manifest import read_manifest
from runtime_bench.preprocess import normalise
from runtime_bench.runtimes import load_runner
from runtime_bench.samples import open_samples


def answers(folder: Path, name: str, samples: Path, micro: bool) -> tuple[str, npt.NDArray]:
    """Return the runtime's name and its predicted classes, int64 (N,)."""
    manifest = read_manifest(folder)
    file = next(file for file in manifest.files if file.name == name)
    path = folder / file.path
    runner = load_runner(path, file, threads=1, runtime="tflite-micro" if micro else None)
    predicted = [
        runner.run(normalise(images, manifest.preprocessing)).argmax(axis=1)
        for images in open_samples(samples, manifest.image_shape).batches(1)
    ]
    return runner.runtime, np.concatenate(predicted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file")
    parser.add_argument("samples", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--micro", action="store_true", help="TensorFlow Lite Micro")
    given = parser.parse_args()
    runtime, predicted = answers(given.folder, given.file, given.samples, given.micro)
    np.save(given.answers, predicted)
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    print(json.dumps({"runtime": runtime, **versions}))


if __name__ == "__main__":
    main()

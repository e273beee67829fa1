"""Classify one image with a file of this folder: python example.py IMAGE [MODEL_FILE]

Needs numpy, Pillow and onnxruntime, ai-edge-litert or tflite-runtime. Without MODEL_FILE the
smallest file is taken whose runtime is installed.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path(__file__).resolve().parent
RUNTIMES = {
    "onnx": ("onnxruntime",),
    "tflite": ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"),
}


def load_image(path: str, manifest: dict[str, Any]) -> np.ndarray:
    """An image as normalised float32 [1, H, W, C]: shorter side resized, centre cropped."""
    prepare = manifest["preprocessing"]
    height, width = manifest["input"]["height"], manifest["input"]["width"]
    image: Image.Image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    shorter = min(image.size)
    size = [int(prepare["resize"] * side / shorter) for side in image.size]
    image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, np.float32) * prepare["scale"]
    pixels = (pixels - np.array(prepare["mean"])) / np.array(prepare["std"])
    return pixels.astype(np.float32)[None]


def to_input(image: np.ndarray, spec: dict[str, Any]) -> np.ndarray:
    """The image in the layout and dtype that the file takes: q = round(x / scale) + zero point."""
    if spec["layout"] == "NCHW":
        image = image.transpose(0, 3, 1, 2)
    if spec["dtype"] == "float32":
        return np.ascontiguousarray(image)
    limits = np.iinfo(spec["dtype"])
    image = np.round(image / spec["scale"]) + spec["zero_point"]
    return np.clip(image, limits.min, limits.max).astype(spec["dtype"])


def run(entry: dict[str, Any], runtime: Any, values: np.ndarray) -> np.ndarray:
    """The first output of a file as float, without the batch dimension."""
    path = str(FOLDER / entry["path"])
    if entry["format"] == "onnx":
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run([entry["output"]["name"]], {entry["input"]["name"]: values})[0][0]
    interpreter = runtime.Interpreter(model_path=path)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    spec = entry["output"]
    details = interpreter.get_output_details()
    details = [detail for detail in details if detail["name"] == spec["name"]] or details
    logits = interpreter.get_tensor(details[0]["index"])[0]
    if spec["dtype"] == "float32":
        return logits
    return (logits.astype(np.float32) - spec["zero_point"]) * spec["scale"]


def import_runtime(format: str) -> Any:
    """The first installed runtime of a format, or None."""
    for name in RUNTIMES[format]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def choose(files: list[dict[str, Any]], wanted: str | None) -> tuple[dict[str, Any], Any]:
    """(entry, runtime) of the wanted file, or of the smallest one that can be run."""
    for entry in sorted(files, key=lambda entry: entry["size_bytes"]):
        if wanted in (None, entry["name"]):
            runtime = import_runtime(entry["format"])
            if runtime is not None:
                return entry, runtime
    names = ", ".join(entry["name"] for entry in files)
    sys.exit(f"no such file, or no runtime for it (files: {names}; runtimes: {RUNTIMES})")


def main(arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    labels = (FOLDER / "labels.txt").read_text(encoding="utf-8").splitlines()
    entry, runtime = choose(manifest["files"], arguments[1] if len(arguments) == 2 else None)
    image = load_image(arguments[0], manifest)
    logits = run(entry, runtime, to_input(image, entry["input"]))
    if logits.ndim != 1:
        print(f"{entry['output']['name']} {list(logits.shape)} ({entry['name']})")
        return
    odds = np.exp(logits - logits.max())
    best = int(logits.argmax())
    print(f"{labels[best]} {odds[best] / odds.sum():.3f} ({entry['name']})")


if __name__ == "__main__":
    main(sys.argv[1:])

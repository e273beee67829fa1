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
    """An image as uint8 pixels [1, H, W, C]."""
    sides = (manifest["input"]["width"], manifest["input"]["height"])
    return decode(path, manifest["preprocessing"]["resize"], sides)[None]


def decode(path: str, resize: int, sides: tuple[int, int]) -> np.ndarray:
    """An image as uint8 RGB [H, W, C], as in training: upright, shorter side resized, centre cut.

    Args:
        resize: the shorter side in pixels.
        sides: (W, H) of the centre.
    """
    with Image.open(path) as file:
        # JPEG: detail far beyond the wanted size is left out, as it was in training.
        draft = max(2 * resize, 256)
        file.draft(None, (draft, draft))
        image = to_rgb(ImageOps.exif_transpose(file))
    shorter = min(image.size)
    width, height = (int(resize * side / shorter) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - sides[0]) / 2), round((height - sides[1]) / 2)
    return np.asarray(image.crop((left, top, left + sides[0], top + sides[1])))


def to_rgb(image: Image.Image) -> Image.Image:
    """Three channels of 8 bits; transparency is dropped, 16-bit grey divided by 256."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255
        grey = np.asarray(image).clip(0, 0xFFFF) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.mode == "F":
        sys.exit("images of floating-point numbers have no agreed range")
    elif image.mode == "P":
        image = image.convert("RGBA")  # a palette with alpha values converts cleanly only this way
    return image.convert("RGB")


def to_input(pixels: np.ndarray, spec: dict[str, Any], prepare: dict[str, Any]) -> np.ndarray:
    """The image in the layout and dtype that the file takes: q = round(x / scale) + zero point.

    A file with a `normalisation` of its own takes the pixels as they are.
    """
    image = pixels
    if "normalisation" not in spec:
        image = (pixels.astype(np.float32) * prepare["scale"] - prepare["mean"]) / prepare["std"]
        image = image.astype(np.float32)
    if spec["layout"] == "NCHW":
        image = image.transpose(0, 3, 1, 2)
    if spec["dtype"] == image.dtype.name:
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
    logits = run(entry, runtime, to_input(image, entry["input"], manifest["preprocessing"]))
    if logits.ndim != 1:
        print(f"{entry['output']['name']} {list(logits.shape)} ({entry['name']})")
        return
    odds = np.exp(logits - logits.max())
    best = int(logits.argmax())
    print(f"{labels[best]} {odds[best] / odds.sum():.3f} ({entry['name']})")


if __name__ == "__main__":
    main(sys.argv[1:])

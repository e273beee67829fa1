"""ResNet-20 on a microcontroller's terms: the arena, and the answers of TensorFlow Lite Micro.

    python benchmarks/cifar_mcu.py DIR [--images 1000]

DIR is a finished result for a board of kind mcu; the test images are read from DIR.run, where they
stay until DIR is replaced. Measures the bundle's file in LiteRT on all test images, in LiteRT and
TensorFlow Lite Micro on `--images` of them (each class by its share), and the arena. Writes
results/mcu.json and results/mcu.md; ends with 1 where the two differ by more than 0.3 points or a
budget is missed. Needs tflite-micro.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress_export.bundling import pack_samples
from runtime_bench import Measurement, measure_folder, read_manifest, verdict

RESULTS = Path(__file__).parent / "results"
LIMIT_POINTS = 0.3
KIB = 1024


def measure(bundle: Path, samples: Path, runtime: str) -> Measurement:
    """Return the figures of the bundle's only file in one runtime."""
    (item,) = measure_folder(bundle, samples=samples, runs=5, warmup=1, runtime=runtime)
    return item


def results(bundle: Path, every: Path, images: int) -> dict[str, Any]:
    """Measure, and put the figures together as plain JSON values."""
    with tempfile.TemporaryDirectory() as scratch:
        some = Path(scratch) / "samples.npz"
        pack_samples(every, some, images, seed=0)
        lite, micro = (measure(bundle, some, name) for name in ("ai-edge-litert", "tflite-micro"))
    all_images = measure(bundle, every, "ai-edge-litert")
    if micro.arena is None or lite.top1 is None or micro.top1 is None:
        sys.exit("tflite-micro is not installed")
    manifest = read_manifest(bundle)
    checks = [c for c in verdict([micro], manifest, baseline_top1=None) if c.value is not None]
    return {
        "model": manifest.model,
        "board": manifest.board.id,
        "machine": platform.platform(),
        "file": micro.name,
        "sha256": micro.sha256,
        "size_bytes": micro.size_bytes,
        "activation_bytes": micro.activation_bytes,
        "arena": micro.arena,
        "checks": [asdict(check) for check in checks],
        "rows": [_row(item) for item in (all_images, lite, micro)],
        "difference_points": round((micro.top1 - lite.top1) * 100, 6),
        "limit_points": LIMIT_POINTS,
    }


def _row(item: Measurement) -> dict[str, Any]:
    wanted = ("runtime", "samples", "top1", "agreement", "eval_seconds")
    return {name: getattr(item, name) for name in wanted}


def markdown(found: dict[str, Any]) -> str:
    """Two tables: memory against what the board has, answers by runtime."""
    arena = found["arena"]
    memory = {
        "file, in flash": found["size_bytes"],
        "activations, lower bound": found["activation_bytes"],
        "arena, head": arena["head_bytes"],
        "arena, tail": arena["tail_bytes"],
        "arena, total after a run": arena["total_bytes"],
        "arena, smallest that works": arena["smallest_bytes"],
    }
    lines = [
        f"{found['file']} of {found['model']} for {found['board']}, {arena['runtime']}; operators "
        f"{', '.join(arena['operators'])}.",
        "",
        "| memory | bytes | KiB |",
        "|---|---:|---:|",
        *(f"| {name} | {size} | {size / KIB:.1f} |" for name, size in memory.items()),
        "",
        "| budget | value | limit | status |",
        "|---|---:|---:|---|",
        *(
            f"| {c['budget']} | {c['value']:.3f} {c['unit']} | {c['limit']:g} {c['unit']} | "
            f"{c['status']} |"
            for c in found["checks"]
        ),
        "",
        "| runtime | images | top-1 % | as torch % |",
        "|---|---:|---:|---:|",
        *(
            f"| {r['runtime']} | {r['samples']} | {r['top1'] * 100:.2f} | "
            f"{r['agreement'] * 100:.2f} |"
            for r in found["rows"]
        ),
        "",
        f"TensorFlow Lite Micro against LiteRT on the same images: "
        f"{found['difference_points']:+.2f} points (allowed {LIMIT_POINTS}).",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--samples", type=Path, help="default: DIR.run/samples.npz")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write")
    given = parser.parse_args()
    every = given.samples or given.folder.with_name(given.folder.name + ".run") / "samples.npz"
    found = results(given.folder / "bundle", every, given.images)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "mcu.json").write_text(json.dumps(found, indent=2) + "\n")
    (given.results / "mcu.md").write_text(markdown(found))
    print(markdown(found))
    missed = any(check["status"] == "fail" for check in found["checks"])
    return int(missed or abs(found["difference_points"]) > LIMIT_POINTS)


if __name__ == "__main__":
    sys.exit(main())

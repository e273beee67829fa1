"""Write the generated parts of docs/codebook.md: `python -m benchmarks.codebook.page`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.codebook.run import DENSE, FILE, FOLDER
from benchmarks.codebook.sizes import CODEBOOK
from benchmarks.pruning import results
from benchmarks.pruning.page.markdown import fill, table, with_range

PAGE = Path(__file__).parents[2] / "docs" / "codebook.md"
MISSING = "_Not measured yet._"
KIB = 2**10
FIT_NAMES = {
    DENSE: "no codebook",
    "kmeans": "k-means",
    "kmeans-linear": "k-means, linear start",
    "mixture": "mixture",
}
_FILES = {"float32.onnx": "float ONNX", "int8.onnx": "INT8 ONNX", "int8.tflite": "INT8 TFLite"}

Row = dict[str, Any]
Groups = Mapping[tuple[str, int, int, str], list[Row]]
"""Rows of all seeds by network, epochs, entries and fit."""


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of {FILE}")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    arguments = parser.parse_args()
    parts = sections(list(results.rows(arguments.results / FILE)))
    arguments.out.write_text(fill(PAGE.read_text(encoding="utf-8"), parts), encoding="utf-8")


def sections(rows: Sequence[Row]) -> dict[str, str]:
    """Return the generated parts of the page by name."""
    groups = grouped(row for row in rows if row["images"] is None)
    return {
        "accuracy": accuracy_table(groups) or MISSING,
        "sizes": size_table(groups) or MISSING,
    }


def grouped(rows: Iterable[Row]) -> Groups:
    """Put the seeds of equal runs together: small codebooks first, fits as in `FIT_NAMES`."""
    found: dict[tuple[str, int, int, str], list[Row]] = {}
    for row in rows:
        key = (row["network"], row["epochs"], row["entries"], row["fit"])
        found.setdefault(key, []).append(row)
    fits = list(FIT_NAMES)
    return {key: found[key] for key in sorted(found, key=lambda k: (*k[:3], fits.index(k[3])))}


def accuracy_table(groups: Groups) -> str:
    """Top-1 by number of entries and fit: right after clustering, and after fine-tuning."""
    header = ("network", "entries", "found by", "epochs", "error of the weights %",
              "validation, shared", "validation, fine-tuned", "test, shared", "test, fine-tuned",
              "lost, points")  # fmt: skip
    lines = []
    for (network, epochs, entries, fit), rows in groups.items():
        dense = groups.get((network, epochs, 0, DENSE))
        lines.append(
            (
                network,
                str(entries) if entries else "all",
                FIT_NAMES[fit],
                str(epochs),
                _mean(rows, "weight_error", decimals=2),
                *(
                    _mean(rows, key, decimals=2)
                    for key in ("validation_top1_before", "validation_top1", "test_top1_before",
                                "test_top1")
                ),
                _lost(rows, dense),
            )
        )  # fmt: skip
    return table(header, lines, text_columns=3) if lines else ""


def size_table(groups: Groups) -> str:
    """Bytes by number of entries: the codebook file, and ordinary files compressed."""
    header = (
        "network", "entries", "found by", "codebook file KiB", "times smaller",
        *(f"{name} KiB, gzip, xz" for name in _FILES.values()),
    )  # fmt: skip
    lines = []
    for (network, _, entries, fit), rows in groups.items():
        files = rows[0]["files"]
        codebook = files[CODEBOOK]
        lines.append(
            (
                network,
                str(entries) if entries else "all",
                FIT_NAMES[fit],
                _kib(codebook["bytes"]),
                f"{codebook['expanded_bytes'] / codebook['bytes']:.1f}",
                *(
                    ", ".join(_kib(files[f][k]) for k in ("bytes", "gzip_bytes", "xz_bytes"))
                    for f in _FILES
                ),
            )
        )
    return table(header, lines, text_columns=3) if lines else ""


def _lost(rows: Sequence[Row], dense: Sequence[Row] | None) -> str:
    """Points of test accuracy lost against the original right after no clustering at all."""
    if dense is None:
        return ""
    original = dense[0]["test_top1_before"]
    return with_range([original - row["test_top1"] for row in rows], 2, scale=100)


def _mean(rows: Sequence[Row], key: str, *, decimals: int) -> str:
    return with_range([row[key] for row in rows], decimals, scale=100)


def _kib(size_bytes: float) -> str:
    return f"{size_bytes / KIB:.1f}"


if __name__ == "__main__":
    main()

"""Write the generated parts of docs/codebook.md: `python -m benchmarks.codebook.page`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.codebook import coding
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
    arguments.out.write_text(filled(arguments.results), encoding="utf-8")


def filled(folder: Path) -> str:
    """Return the page with its generated parts made anew from a folder of results."""
    parts = sections(list(results.rows(folder / FILE))) | coding_sections(folder / coding.FILE)
    return fill(PAGE.read_text(encoding="utf-8"), parts)


def sections(rows: Sequence[Row]) -> dict[str, str]:
    """Return the generated parts of the page by name."""
    whole = [row for row in rows if row["images"] is None]
    results.refuse_mixed(whole, ("network", "epochs"), ("learning_rate",))
    groups = grouped(whole)
    return {
        "accuracy": accuracy_table(groups) or MISSING,
        "sizes": size_table(groups) or MISSING,
    }


def coding_sections(file: Path) -> dict[str, str]:
    """Return the parts that come from `benchmarks.codebook.coding`."""
    if not file.is_file():
        return {"coding": MISSING, "fits": MISSING}
    found = json.loads(file.read_text(encoding="utf-8"))
    facts = f"{found['network']}, {found['weights']:,} weights, seed {found['seed']}.\n"
    return {
        "coding": f"{facts}\n{coding_table(found['entries'])}",
        "fits": f"{facts}\n{fit_table(found['entries'])}",
    }


def coding_table(entries: Iterable[Row]) -> str:
    """Bytes of the indices by form and coder, the smallest of a row in bold."""
    header = ("entries", "entropy", "packed", *(f"packed, {c}" for c in coding.CODERS),
              *(f"a byte each, {c}" for c in coding.CODERS))  # fmt: skip
    lines = []
    for row in entries:
        coded = [row["bytes"][form][c] for form in ("packed", "bytewise") for c in coding.CODERS]
        best = min(coded)
        lines.append(
            (
                f"{row['entries']} ({row['index_bits']} bits)",
                f"{row['entropy_bytes']['kmeans']:,.0f}",
                f"{row['bytes']['packed']['plain']:,}",
                *(f"**{size:,}**" if size == best else f"{size:,}" for size in coded),
            )
        )
    return table(header, lines)


def fit_table(entries: Iterable[Row]) -> str:
    """Squared error of the weights, and entropy of the indices, by the way to find them."""
    fits = [name for name in FIT_NAMES if name != DENSE]
    header = ("entries", *(f"squared error, {FIT_NAMES[f]}" for f in fits),
              *(f"entropy KB, {FIT_NAMES[f]}" for f in fits))  # fmt: skip
    lines = [
        (
            str(row["entries"]),
            *(f"{row['squared_error'][f]:.3g}" for f in fits),
            *(f"{row['entropy_bytes'][f] / 1000:.1f}" for f in fits),
        )
        for row in entries
    ]
    return table(header, lines)


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

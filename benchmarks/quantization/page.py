"""Write docs/quantization-benchmarks.md from the results: `python -m benchmarks.quantization.page`.

What stands between `<!-- generated: NAME -->` and `<!-- end -->` is replaced, and the picture is
drawn. The same results give the same page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.pruning import results
from benchmarks.pruning.page.comparison import environments
from benchmarks.pruning.page.markdown import fill, picture
from benchmarks.quantization import bits, joint, modes, tables, times, train_mobilenet
from benchmarks.quantization.plot import PICTURE, draw, points
from benchmarks.quantization.setting import FOLDER
from benchmarks.quantization.tables import Row, complete

PAGE = Path(__file__).parents[2] / "docs" / "quantization-benchmarks.md"
MISSING = "_Not measured yet._"

Table = Callable[[Sequence[Row]], str]


def main() -> None:
    """Fill the page and draw its picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the rows")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write; pictures beside it")
    arguments = parser.parse_args()
    parts = sections(arguments.results)
    arguments.out.write_text(fill(PAGE.read_text(encoding="utf-8"), parts), encoding="utf-8")
    shown = points(read(arguments.results, modes.FILE))
    if shown:
        draw(shown, arguments.out.parent / "images")


def read(folder: Path, file: str) -> list[Row]:
    """Return the rows of a file that count, those of files with their newest times."""
    found = complete(results.rows(folder / file))
    if file == modes.FILE:
        return times.with_newest(found, results.rows(folder / times.FILE))
    return found


def sections(folder: Path) -> dict[str, str]:
    """Return the generated parts of the page by name."""
    return {
        name: _section(read(folder, file), file, makers) or MISSING
        for name, (file, makers) in SECTIONS.items()
    }


def _section(rows: Sequence[Row], file: str, makers: Sequence[Table]) -> str:
    parts = [part for make in makers if (part := make(rows))]
    if not parts:
        return ""
    link = f"[quantization/{file}](../benchmarks/results/quantization/{file})"
    return "\n".join([f"From {link}. {environments(dict(row) for row in rows)}\n", *parts])


def _modes(rows: Sequence[Row]) -> str:
    text = tables.mode_tables(rows)
    return f"{picture(PICTURE, 'Top-1 against the size of the file')}\n{text}" if text else ""


SECTIONS: Mapping[str, tuple[str, Sequence[Table]]] = {
    "baselines": (train_mobilenet.FILE, (tables.baseline_table,)),
    "modes": (modes.FILE, (_modes,)),
    "peers": (modes.FILE, (tables.peer_table,)),
    "large": (modes.FILE, (tables.large_table,)),
    "bits": (bits.FILE, (tables.bits_table,)),
    "joint": (joint.FILE, (tables.joint_table, tables.candidate_table)),
}
"""Name of a generated part -> the file of its rows, and its tables."""


if __name__ == "__main__":
    main()

"""Write docs/benchmarks.md from the results: `python -m benchmarks.pruning.tables`.

The prose of the page is its own, what stands between `<!-- generated: NAME -->` and `<!-- end -->`
is replaced, and the pictures that the page shows are drawn. The same results give the same page.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from benchmarks.pruning.page.markdown import fill
from benchmarks.pruning.page.sections import SECTIONS, Found
from benchmarks.pruning.results import FOLDER

MISSING = "_Not measured yet._"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> None:
    """Fill the page and draw the pictures that it shows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of runs.jsonl")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write; pictures beside it")
    parser.add_argument("--no-pictures", action="store_true", help="the text alone")
    arguments = parser.parse_args()
    found = Found.read(arguments.results)
    text = filled(PAGE.read_text(encoding="utf-8"), found)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")
    if not arguments.no_pictures:
        from benchmarks.pruning.page.plots import draw

        draw(found, pictures(text), arguments.out.parent / "images")


def filled(page: str, found: Found) -> str:
    """Return the page with its generated parts made anew."""
    return fill(page, {name: section(found) or MISSING for name, section in SECTIONS.items()})


def pictures(page: str) -> list[str]:
    """Return the names of the pictures that a page shows."""
    return re.findall(r"\]\(images/([\w-]+)\.png\)", page)


if __name__ == "__main__":
    main()

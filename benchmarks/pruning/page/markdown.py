"""Markdown: tables, numbers in cells, and the generated parts of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from compressor.errors import InputError

_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """Return a table, its first columns text and the others numbers."""
    rules = ["---" if i < text_columns else "---:" for i in range(len(header))]
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(rules)}|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float | None, decimals: int, *, scale: float = 1.0) -> str:
    """Return a number for a cell; nothing for None."""
    return "" if value is None else f"{value * scale:.{decimals}f}"


def with_range(values: Sequence[float] | None, decimals: int, *, scale: float = 1.0) -> str:
    """Return a mean, and the lowest and highest value in brackets where there are several."""
    if not values:
        return ""
    mean = number(sum(values) / len(values), decimals, scale=scale)
    if len(values) == 1:
        return mean
    low, high = (number(v, decimals, scale=scale) for v in (min(values), max(values)))
    return f"{mean} [{low}, {high}]"


def picture(name: str, alternative: str) -> str:
    """Return the link to a picture of the page."""
    return f"![{alternative}](images/{name}.png)\n"


def fill(page: str, parts: Mapping[str, str]) -> str:
    """Replace what stands between `<!-- generated: NAME -->` and `<!-- end -->`.

    Raises:
        InputError: the page's parts are not these.
    """
    found = [match[2] for match in _PART.finditer(page)]
    if sorted(found) != sorted(parts):
        raise InputError(f"the page has the generated parts {found}, wanted: {list(parts)}")
    return _PART.sub(lambda match: f"{match[1]}\n{parts[match[2]].strip()}\n\n{match[3]}", page)

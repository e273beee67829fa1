"""Make the figures and the picture of docs/large-models.md from results/large.jsonl.

python -m benchmarks.large_page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bench_large import EXPECTED_CODES, RESULTS, STAGES, TFLITE, Row
from benchmarks.pruning.page.markdown import fill, table
from compressor.verify import WIDENED_BYTES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "large-models.md"
PICTURE = ROOT / "docs" / "images" / "large-models.png"
GB = 1e9
ASKED_GB = (2.57, 20.0, 60.0)
LARGE = ", beyond 1 GiB"


@dataclass(frozen=True)
class Slope:
    """A line through a stage's rows: what it takes for `weights` bytes of float32.

    Attributes:
        memory: bytes of anonymous memory per byte of weights.
        memory_base: bytes for a network of nothing.
        seconds_per_gb: processor time per GB of weights.
        seconds_base: for a network of nothing.
    """

    memory: float
    memory_base: float
    seconds_per_gb: float
    seconds_base: float

    def memory_gb(self, weights_gb: float) -> float:
        return self.memory_base / GB + self.memory * weights_gb

    def hours(self, weights_gb: float) -> float:
        return (self.seconds_base + self.seconds_per_gb * weights_gb) / 3600


def read_rows(path: Path) -> list[Row]:
    """The last row of each network and stage that ended well, smallest networks first."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = {(row.weight_bytes, row.stage): row for row in (Row(**json.loads(x)) for x in lines)}
    rows = [row for row in found.values() if row.exit_code in EXPECTED_CODES]
    return sorted(rows, key=lambda row: (row.weight_bytes, STAGES.index(row.stage)))


def by_line(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each stage; of slim those beyond `WIDENED_BYTES`, compared in float32, apart."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        large = row.stage == "slim" and row.weight_bytes > WIDENED_BYTES
        found.setdefault(row.stage + LARGE * large, []).append(row)
    return dict(sorted(found.items(), key=lambda item: STAGES.index(item[0].removesuffix(LARGE))))


def slopes(rows: Sequence[Row]) -> dict[str, Slope]:
    """A line by least squares for each stage of two sizes; slim's second has its first's base."""
    found: dict[str, Slope] = {}
    for name, own in by_line(rows).items():
        base = found.get(name.removesuffix(LARGE)) if name.endswith(LARGE) else None
        if len(own) > 1 or base is not None:
            found[name] = _line(own, base)
    return found


def _line(rows: Sequence[Row], base: Slope | None = None) -> Slope:
    sizes = np.array([row.weight_bytes / GB for row in rows])
    memory = np.array([row.peak_anonymous_bytes for row in rows])
    seconds = np.array([row.cpu_seconds for row in rows])
    if base is None:
        (slope, start), (rate, first) = (np.polyfit(sizes, y, 1) for y in (memory, seconds))
    else:
        start, first = base.memory_base, base.seconds_base
        slope, rate = (
            (y - y0) @ sizes / (sizes @ sizes) for y, y0 in ((memory, start), (seconds, first))
        )
    return Slope(float(slope / GB), float(start), float(rate), float(first))


def parts(rows: Sequence[Row]) -> dict[str, str]:
    """The generated parts of the page."""
    lines = slopes(rows)
    return {"memory": _memory(rows, lines), "estimate": _estimate(lines), "method": _method(rows)}


def _memory(rows: Sequence[Row], lines: Mapping[str, Slope]) -> str:
    cells = [
        (
            f"{row.weight_bytes / GB:.2f}",
            row.stage,
            f"{row.peak_anonymous_bytes / GB:.2f}",
            f"{row.peak_rss_bytes / GB:.2f}",
            f"{row.cpu_seconds:.0f}",
            f"{row.seconds:.0f}",
        )
        for row in rows
    ]
    header = (
        "Weights, GB", "Stage", "Anonymous, GB", "Resident, GB", "Processor, s", "Wall, s",
    )  # fmt: skip
    fitted = [
        (
            stage,
            f"{line.memory:.2f}",
            f"{line.memory_base / GB:.2f}",
            str(round(line.seconds_per_gb)),
        )
        for stage, line in lines.items()
    ]
    fitted_header = ("Stage", "Anonymous, times the weights", "and GB", "Processor, s per GB")
    return (
        f"{table(header, cells, text_columns=2)}\n"
        f"Lines through them, by least squares:\n\n{table(fitted_header, fitted)}"
    )


def _estimate(lines: Mapping[str, Slope]) -> str:
    header = (
        "Stage",
        *(f"{size:g} GB: memory, GB" for size in ASKED_GB),
        *(f"{size:g} GB: processor, h" for size in ASKED_GB),
    )
    cells = [
        (
            stage,
            *(f"{line.memory_gb(size):.1f}" for size in ASKED_GB),
            *(f"{max(0.0, line.hours(size)):.2f}" for size in ASKED_GB),
        )
        for stage, line in lines.items()
        # Not a line that ends where another one begins, nor files that end at 2 GiB.
        if stage + LARGE not in lines and stage not in TFLITE
    ]
    return table(header, cells)


def _method(rows: Sequence[Row]) -> str:
    loads = sorted(row.load_average for row in rows)
    return (
        "```\npython -m benchmarks.bench_large --work FOLDER --blocks 1 2 5 13 34\n"
        "python -m benchmarks.large_page\n```\n\n"
        "Residual blocks of 3x3 convolutions with 1,024 channels on 2 x 2 places "
        "(`benchmarks/large_net.py`), so that weights are nearly all there is: 75.5 MB a block. "
        f"Each stage is the user's command in a process of its own. {rows[0].host}, one thread, "
        f"load average {loads[0]:.0f} to {loads[-1]:.0f}: wall time is that of a busy machine, "
        "processor time stands beside it. Exit codes and last lines are in "
        f"`benchmarks/results/{RESULTS.name}`.\n"
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw memory and processor time over the size of the weights, a line for each stage."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = slopes(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
    for stage, line in lines.items():
        own = by_line(rows)[stage]
        sizes = np.array([0.0, *(row.weight_bytes / GB for row in own)])
        memory = [row.peak_anonymous_bytes / GB for row in own]
        (drawn,) = left.plot(sizes[1:], memory, "o")
        left.plot(sizes, [line.memory_gb(x) for x in sizes], color=drawn.get_color(), label=stage)
        right.plot(sizes[1:], [row.cpu_seconds for row in own], "o", color=drawn.get_color())
        right.plot(sizes, [3600 * line.hours(x) for x in sizes], color=drawn.get_color())
    reach = np.array([0, max(row.weight_bytes for row in rows) / GB])
    left.plot(reach, 4 * reach, "--", color="grey", label="4 times")
    for axes, title in ((left, "peak of anonymous memory, GB"), (right, "processor time, s")):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("float32 weights, GB")
        axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Rewrite the page and its picture."""
    rows = read_rows(RESULTS)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(fill(page, parts(rows)), encoding="utf-8")
    draw(rows, PICTURE)


if __name__ == "__main__":
    main()

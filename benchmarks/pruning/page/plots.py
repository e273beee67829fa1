"""Pictures of the results. matplotlib is imported where one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pruning.page.comparison import Comparison, ladders
from benchmarks.pruning.page.file_plots import accuracy_by_latency, showcase
from benchmarks.pruning.page.plot_style import method_styles
from benchmarks.pruning.page.records import Entry
from benchmarks.pruning.page.time_plots import epoch_time, time_to_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.pruning.page.sections import Found


def draw(found: Found, names: Sequence[str], folder: Path) -> None:
    """Draw the named pictures into a folder, as NAME.png."""
    from matplotlib import pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "legend.frameon": False,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        figure = PICTURES[name](found)
        # Without the writer's version, the same results give the same bytes.
        figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})
        plt.close(figure)


def accuracy_by_macs(found: Found) -> Figure:
    """Draw top-1 against the MACs left."""
    return _accuracy(
        found,
        "MACs left, %",
        lambda e: _scaled(e.mean("shares", "macs"), 100),
        ticks_at_targets=True,
    )


def accuracy_by_bytes(found: Found) -> Figure:
    """Draw top-1 against the bytes of the INT8 weights."""
    label = "INT8 weights, KiB"
    return _accuracy(found, label, lambda e: _scaled(e.mean("int8_weight_bytes"), 1 / 1024))


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _accuracy(
    found: Found,
    label: str,
    place: Callable[[Entry], float | None],
    *,
    ticks_at_targets: bool = False,
) -> Figure:
    from matplotlib import pyplot as plt

    longest: dict[str, list[Comparison]] = {}
    for (network, _, _), ladder in ladders(found.comparisons).items():
        if len(ladder) > len(longest.get(network, [])):
            longest[network] = ladder
    longest = {n: ladder for n, ladder in longest.items() if _compares(ladder)} or longest
    looks = method_styles([c for ladder in longest.values() for c in ladder])
    figure, axes = plt.subplots(
        1,
        len(longest),
        figsize=(1.8 + 3.6 * len(longest), 3.9),
        layout="constrained",
        squeeze=False,
    )
    handles: dict[str, Any] = {}
    for axis, (network, ladder) in zip(axes[0], longest.items(), strict=True):
        for method, look in looks.items():
            points = _points(ladder, method, place)
            if points:
                handles[method] = _line(axis, points, look)
        _continued_line(axis, ladder[0])
        axis.set(title=f"{network}, {ladder[0].target.epochs} epochs", xlabel=label)
        _log_axis(axis, [x for c in ladder for e in c.entries if (x := place(e))])
        if ticks_at_targets and ladder[0].target.cost == "macs":
            axis.set_xticks([100 * c.target.share for c in ladder])
        axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes[0][0].set_ylabel("top-1 on test images, %")
    ordered = {m: handles[m] for m in looks if m in handles}
    figure.legend(ordered.values(), ordered.keys(), loc="outside right upper")
    return figure


def _compares(ladder: Sequence[Comparison]) -> bool:
    """Whether there is more than one method to look at."""
    return len({entry.method for c in ladder for entry in c.entries}) > 1


def _points(
    ladder: Sequence[Comparison], method: str, place: Callable[[Entry], float | None]
) -> list[tuple[float, list[float]]]:
    """Return (place, top-1 in percent of every seed), in the order of places."""
    found = []
    for entry in (e for c in ladder for e in c.entries if e.method == method):
        x, top1 = place(entry), entry.values("test_top1")
        if x is not None and top1:
            found.append((x, [100 * value for value in top1]))
    return sorted(found)


def _line(axis: Axes, points: Sequence[tuple[float, list[float]]], look: dict[str, Any]) -> Any:
    """Draw means, and bars from the worst seed to the best."""
    means = [sum(values) / len(values) for _, values in points]
    spread = [
        [mean - min(values) for mean, (_, values) in zip(means, points, strict=True)],
        [max(values) - mean for mean, (_, values) in zip(means, points, strict=True)],
    ]
    return axis.errorbar([x for x, _ in points], means, yerr=spread, elinewidth=0.8, **look)


def _continued_line(axis: Axes, c: Comparison) -> None:
    top1 = c.continued.mean("test_top1") if c.continued else None
    if top1 is not None:
        axis.axhline(100 * top1, color="black", linewidth=0.8, linestyle=":")
        axis.annotate(
            "continued baseline", (0.02, 100 * top1), xycoords=("axes fraction", "data"),
            xytext=(0, -3), textcoords="offset points", fontsize=7.5, va="top",
        )  # fmt: skip


def _log_axis(axis: Axes, places: Sequence[float]) -> None:
    """Make equal factors equal distances, with plain numbers at a handful of round places."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(places), max(places)
    subs = (1.0, 1.5) if high > 3 * low else (1.0, 1.25, 1.5, 1.75)
    axis.set_xscale("log", base=2)
    axis.set_xlim(low / 1.12, high * 1.12)
    axis.xaxis.set_major_locator(LogLocator(base=2, subs=subs, numticks=30))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


PICTURES: Mapping[str, Callable[[Found], Figure]] = {
    "accuracy-macs": accuracy_by_macs,
    "accuracy-bytes": accuracy_by_bytes,
    "accuracy-latency": accuracy_by_latency,
    "time-to-result": time_to_result,
    "epoch-time": epoch_time,
    "showcase": showcase,
}

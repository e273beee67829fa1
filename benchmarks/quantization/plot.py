"""The picture of the page: top-1 against the size of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pruning.page.plot_style import BLUE, DARK
from benchmarks.quantization.setting import SIZE
from benchmarks.quantization.tables import FORMAT_NAMES, KIB, TOOLS, Row, grouped

PICTURE = "quantization-size"
_MARKERS = {"onnx": "o", "tflite": "s"}


@dataclass(frozen=True)
class Point:
    """One file; means over seeds.

    Attributes:
        size_kib: of the file.
        top1: on the test images, in percent.
    """

    network: str
    format: str
    mode: str
    size_kib: float
    top1: float


def points(rows: Sequence[Row]) -> list[Point]:
    """Return the files whose accuracy was measured."""
    keys = ("network", "format", "mode")
    known = [row for row in rows if row["size"] == SIZE]
    return [
        Point(
            network,
            format,
            mode,
            sum(row["size_bytes"] for row in seeds) / len(seeds) / KIB,
            100 * sum(row["top1"] for row in seeds) / len(seeds),
        )
        for (network, format, mode), seeds in grouped(known, *keys).items()
    ]


def draw(shown: Sequence[Point], folder: Path) -> None:
    """Draw one panel per network into FOLDER/quantization-size.png; other tools are grey."""
    from matplotlib import pyplot as plt

    networks = list(dict.fromkeys(point.network for point in shown))
    figure, axes = plt.subplots(
        1, len(networks), figsize=(0.8 + 4.2 * len(networks), 4.0), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for axis, network in zip(axes[0], networks, strict=True):
        for point in (point for point in shown if point.network == network):
            colour = DARK if point.mode in TOOLS else BLUE
            axis.plot(
                point.size_kib, point.top1, _MARKERS[point.format], color=colour, markersize=5
            )
            axis.annotate(
                point.mode, (point.size_kib, point.top1), xytext=(4, 3),
                textcoords="offset points", fontsize=6.5, color=colour,
            )  # fmt: skip
        axis.set(title=network, xlabel="file, KiB", xscale="log")
        axis.margins(x=0.2)
        axis.grid(color="#e6e6e6", linewidth=0.7)
    axes[0][0].set_ylabel("top-1 on test images, %")
    handles = [
        axes[0][0].plot([], [], marker, color=BLUE, label=FORMAT_NAMES[format])[0]
        for format, marker in _MARKERS.items()
    ]
    axes[0][0].legend(handles=handles, loc="lower right", frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    # Without the writer's version, the same results give the same bytes.
    figure.savefig(folder / f"{PICTURE}.png", dpi=130, metadata={"Software": None})
    plt.close(figure)

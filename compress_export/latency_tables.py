"""Latency tables of a network for a board: layers -> small files -> timings -> tables."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress_export.latency_cache import LatencyCache, default_cache_folder
from compress_export.targets import channel_step

if TYPE_CHECKING:
    from boards import Board
    from compressor.graph import ChannelGraph
    from compressor.graph.channel_graph import Geometry
    from compressor.latency import LatencyTable, LayerKey
    from exporters.layer_files import LayerSpec

_COPIES_MACS = 20e6
_MOST_COPIES, _LEAST_COPIES = 8, 2
"""Copies of a layer in one file: enough that a run's own cost is small beside them."""

_SAVE_EVERY = 384
"""Files that are made and timed before what is known is written down."""

_RUN_MS, _POOL_MS = "run", "pool"


def latency_tables(
    graph: ChannelGraph,
    board: Board,
    formats: Sequence[str],
    *,
    precision: str,
    threads: int,
    say: Callable[[str], None],
    cache_folder: Path | None = None,
) -> tuple[LatencyTable, ...]:
    """Measure every layer of a network at the board's channel steps, on this machine.

    What an earlier run measured with the same runtime, CPU and settings comes from the cache.

    Args:
        graph: the network's.
        formats: one table for each, in this order.
        precision: "int8" or "float32".
        threads: of one operator.
        say: is told how far it is, and how long it took.
        cache_folder: the user's cache folder where it is None.

    Raises:
        RuntimeMissingError: no runtime for a format is installed.
        UnsupportedExportError: the board has no such format or precision.
        BenchError: a runtime failed.
    """
    from compressor import ranks
    from compressor.latency import LatencyTable, timed_layers

    step = channel_step(board, precision)
    keys = list(dict.fromkeys(layer.key for layer in timed_layers(graph, step)))
    folder = cache_folder or default_cache_folder()
    wanted = {name: spec for key in keys for name, spec in _points(key).items()}

    def measured(file_format: str) -> dict[str, float]:
        bench = _Bench(board, file_format, precision, threads)
        cache = LatencyCache(folder, bench.identity, say)
        bench.measure(wanted, cache, say)
        return {name: float(ms) for name, ms in cache.milliseconds.items()}

    tables = []
    for file_format in formats:
        known = ranks.from_first(partial(measured, file_format))
        grids = {
            key: np.array([known[name] for name in _points(key)]).reshape(
                len(key.inputs), len(key.outputs)
            )
            for key in keys
        }
        tables.append(LatencyTable(file_format, step, grids, known[_RUN_MS]))
    return tuple(tables)


def layer_latencies(
    specs: Sequence[LayerSpec], board: Board, file_format: str, *, precision: str, threads: int
) -> list[float]:
    """Measure single layers without a cache: milliseconds of each, in order.

    Raises:
        as `latency_tables` does.
    """
    bench = _Bench(board, file_format, precision, threads)
    return bench.layers(specs, bench.constants())


def _points(key: LayerKey) -> dict[str, LayerSpec]:
    """Return name -> layer of every grid point, outputs varying fastest."""
    found = {}
    for inputs in key.inputs:
        for outputs in key.outputs:
            spec = layer_spec(key.geometry, inputs, outputs, key)
            found[_name(spec)] = spec
    return found


def layer_spec(geometry: Geometry, inputs: int, outputs: int, key: LayerKey) -> LayerSpec:
    """Return a layer at one grid point as the exporter's layer files want it."""
    from exporters.layer_files import LayerSpec

    if geometry.kind == "depthwise":
        inputs = outputs * key.inputs[-1] // key.outputs[-1]
    if geometry.kind == "elementwise":
        inputs = outputs
    return LayerSpec(
        geometry.kind,
        inputs,
        outputs,
        geometry.kernel,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.input_size,
        geometry.groups,
    )


def _name(spec: LayerSpec) -> str:
    """Return a key for the cache: everything that the latency depends on."""
    parts = (
        f"{letter}{height}x{width}"
        for letter, (height, width) in (
            ("k", spec.kernel),
            ("s", spec.stride),
            ("p", spec.padding),
            ("d", spec.dilation),
            ("i", spec.input_size),
        )
    )
    return f"{spec.kind} {' '.join(parts)} g{spec.groups} {spec.inputs}->{spec.outputs}"


@dataclass(frozen=True)
class _Bench:
    """One runtime, and how files for it are made."""

    board: Board
    format: str
    precision: str
    threads: int

    @property
    def identity(self) -> dict[str, Any]:
        """What measured values hold for."""
        from runtime_bench import host_facts, runtime_name

        host = host_facts()
        rules = {
            "onnx": self.board.quantization.onnx,
            "tflite": self.board.quantization.tflite,
        }[self.format]
        return {
            "runtime": runtime_name(self.format),
            "cpu": host.model,
            "isa": list(host.isa),
            "threads": self.threads,
            "format": self.format,
            "precision": self.precision,
            "rules": rules.model_dump() if rules and self.precision == "int8" else None,
        }

    def measure(
        self, wanted: Mapping[str, LayerSpec], cache: LatencyCache, say: Callable[[str], None]
    ) -> None:
        """Measure what the cache lacks, and put it there."""
        lacking = [name for name in wanted if name not in cache.milliseconds]
        label = f"latency table ({self.format})"
        started = time.perf_counter()
        if not {_RUN_MS, _POOL_MS} <= cache.milliseconds.keys():
            cache.add(self.constants(), 0.0)
        for first in range(0, len(lacking), _SAVE_EVERY):
            names = lacking[first : first + _SAVE_EVERY]
            say(f"{label}: {first} of {len(lacking)} layer widths measured")
            began = time.perf_counter()
            measured = self.layers([wanted[name] for name in names], cache.milliseconds)
            cache.add(dict(zip(names, measured, strict=True)), time.perf_counter() - began)
        say(
            f"{label}: {len(lacking)} layer widths measured in "
            f"{time.perf_counter() - started:.1f} s, {len(wanted) - len(lacking)} known before"
        )

    def constants(self) -> dict[str, float]:
        """Return what a run costs beside layers, and the pool behind each ONNX convolution."""
        from exporters.layer_files import LayerSpec

        tiny, many = LayerSpec("conv", 8, 8), _MOST_COPIES
        once, often, pooled = self._time([(tiny, 1, 1), (tiny, many, 1), (tiny, many, 2)])
        run_ms = max(0.0, (many * once - often) / (many - 1))
        return {_RUN_MS: run_ms, _POOL_MS: max(0.0, (pooled - often) / many)}

    def layers(self, specs: Sequence[LayerSpec], constants: Mapping[str, float]) -> list[float]:
        """Return milliseconds of layers, without what a run costs beside them."""
        files = [(spec, _copies(spec), 1) for spec in specs]
        found = []
        for (spec, copies, _), ms in zip(files, self._time(files), strict=True):
            pool_ms = constants[_POOL_MS] if spec.is_conv and self.format == "onnx" else 0.0
            found.append(max(0.0, (ms - constants[_RUN_MS]) / copies - pool_ms))
        return found

    def _time(self, files: Sequence[tuple[LayerSpec, int, int]]) -> list[float]:
        """Return milliseconds of files given as (layer, copies, pools)."""
        from exporters.layer_files import layer_file
        from runtime_bench import time_small_files

        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, (spec, copies, pools) in enumerate(files):
                path = Path(folder) / f"{number}.{self.format}"
                path.write_bytes(
                    layer_file(
                        spec,
                        format=self.format,
                        precision=self.precision,
                        board=self.board,
                        copies=copies,
                        pools=pools,
                    )
                )
                paths.append(path)
            return time_small_files(paths, self.format, threads=self.threads)


def _copies(spec: LayerSpec) -> int:
    macs = math.prod(spec.weight_shape) * math.prod(spec.output_size)
    return max(_LEAST_COPIES, min(_MOST_COPIES, int(_COPIES_MACS // macs)))

"""Is a slimmed network the masked one? One row for every architecture the project names.

    python benchmarks/bench_exactness.py --seed 0

Each network gets random batch-norm statistics, scales and biases and a random keep set (half of
the channels; every third removable group goes as a whole). Written to results/exactness.json and
results/exactness.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from compressor.cost import NetworkCosts, as_tensor
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.graph.channel_graph import FIXED_CLASS
from compressor.masks import ChannelMasks
from compressor.models import build_model, default_input
from compressor.slim import slim

RESULTS = Path(__file__).parent / "results"
FAMILY = (
    *("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
    *("resnet18", "vgg16", "vgg16-decore"),
)
TORCHVISION = (
    *("torchvision:resnet18", "resnet50", "vgg16_bn", "mobilenet_v2", "mobilenet_v3_small"),
    *("efficientnet_b0", "densenet121", "googlenet", "squeezenet1_1", "regnet_x_400mf"),
    *("resnext50_32x4d", "shufflenet_v2_x1_0", "inception_v3"),
)
CLASSES = 10
FLOAT64_LIMIT, FLOAT32_LIMIT, ANALYSIS_LIMIT_S = 1e-9, 1e-5, 3.0


@dataclass(frozen=True)
class Row:
    """What was measured of one network.

    Attributes:
        input_px: side of the picture that was analysed, the network's usual one.
        analysis_s: wall time of `channel_graph`, one thread.
        error_float64, error_float32: largest difference over the largest output.
        classes, groups, removable_groups: of the channel graph.
        prunable_share: output channels of convs and linear layers that may be dropped; the rest is
            the network's output or listed in `fixed`.
        macs_left, params_left: share that the keep set leaves.
        fixed: name -> why it isn't pruned.
    """

    network: str
    input_px: int
    analysis_s: float
    error_float64: float
    error_float32: float
    classes: int
    groups: int
    removable_groups: int
    prunable_share: float
    macs_left: float
    params_left: float
    fixed: dict[str, str]

    @property
    def passed(self) -> bool:
        """Return whether the row is within the limits of this benchmark."""
        exact = self.error_float64 <= FLOAT64_LIMIT and self.error_float32 <= FLOAT32_LIMIT
        return exact and self.analysis_s <= ANALYSIS_LIMIT_S


def randomize(model: nn.Module, generator: torch.Generator) -> None:
    """Give batch norms values under which a misplaced mask shows."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            n = norm.num_features
            norm.weight.data = torch.rand(n, generator=generator) + 0.5
            norm.bias.data = torch.randn(n, generator=generator) * 0.3
            norm.running_mean = torch.randn(n, generator=generator) * 0.3
            norm.running_var = torch.rand(n, generator=generator) + 0.5


def random_keep(graph: ChannelGraph, rng: np.random.Generator) -> Keep:
    """Keep half of the channels; empty every third removable group."""
    keep = rng.random(graph.class_count) < 0.5
    removable = [group for group in graph.groups if group.removable]
    for group in removable[::3]:
        keep[group.classes] = False
    for group in graph.groups:
        if not group.removable and not keep[group.classes].any():
            keep[rng.choice(group.classes)] = True
    return keep


def error(
    model: nn.Module, slimmed: nn.Module, graph: ChannelGraph, keep: Keep, x: Tensor
) -> float:
    """Return max |masked(x) - slim(x)| / max |masked(x)|."""
    masks = ChannelMasks(model, graph)
    with torch.no_grad(), masks:
        masks.set(torch.from_numpy(keep).to(x.dtype))
        expected = model(x)
    with torch.no_grad():
        return float((slimmed(x) - expected).abs().max() / expected.abs().max())


def measure(name: str, seed: int) -> Row:
    """Analyse, mask and slim one network at its usual input size."""
    torch.manual_seed(seed)
    model = build_model(name, CLASSES).eval()
    randomize(model, torch.Generator().manual_seed(seed))
    side = default_input(name).size
    x = torch.randn(1, 3, side, side)
    start = time.perf_counter()
    graph = channel_graph(model, x)
    analysis_s = time.perf_counter() - start
    keep = random_keep(graph, np.random.default_rng(seed))
    slimmed = slim(model, graph, keep)
    in_float32 = error(model, slimmed, graph, keep, x)
    exact = copy.deepcopy(model).double()
    in_float64 = error(exact, slim(exact, graph, keep), graph, keep, x.double())
    costs = NetworkCosts(graph)
    outputs = np.concatenate([layer.out_classes for layer in graph.layers])
    return Row(
        network=name,
        input_px=side,
        analysis_s=analysis_s,
        error_float64=in_float64,
        error_float32=in_float32,
        classes=graph.class_count,
        groups=len(graph.groups),
        removable_groups=sum(group.removable for group in graph.groups),
        prunable_share=float((outputs != FIXED_CLASS).mean()),
        macs_left=float(costs.macs(as_tensor(keep)) / costs.macs(as_tensor(graph.all_kept()))),
        params_left=parameters(slimmed) / parameters(model),
        fixed=graph.fixed,
    )


def parameters(model: nn.Module) -> int:
    """Count parameters."""
    return sum(p.numel() for p in model.parameters())


def table(rows: list[Row], facts: dict[str, object]) -> str:
    """Return the rows as Markdown."""
    head = (
        "| Network | Input, px | Analysis, s | Error, float64 | Error, float32 | Classes | Groups "
        "| Removable | Prunable channels, % | MACs left, % | Parameters left, % | Fixed |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    lines = [
        f"| {r.network} | {r.input_px} | {r.analysis_s:.2f} | {r.error_float64:.1e} "
        f"| {r.error_float32:.1e} | {r.classes} | {r.groups} | {r.removable_groups} "
        f"| {100 * r.prunable_share:.2f} | {100 * r.macs_left:.1f} | {100 * r.params_left:.1f} "
        f"| {', '.join(r.fixed)} |\n"
        for r in rows
    ]
    note = (
        "# Masked against slimmed\n\n"
        f"`python benchmarks/bench_exactness.py --seed {facts['seed']}`: "
        + ", ".join(f"{name} {value}" for name, value in facts.items() if name != "seed")
        + f". Allowed: {FLOAT64_LIMIT:.0e} of the largest output in float64, "
        f"{FLOAT32_LIMIT:.0e} in float32, {ANALYSIS_LIMIT_S:.0f} s of analysis. Batch norms have "
        "random statistics, scales and biases; half of the channels are kept at random and every "
        "third removable group is emptied.\n\n"
    )
    return note + head + "".join(lines)


def main() -> int:
    """Measure every network; return 1 where one is outside the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", nargs="*", default=[*FAMILY, *TORCHVISION])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measure("resnet20", arguments.seed)  # imports and caches are no part of the first row's time
    rows = []
    for name in arguments.networks:
        rows.append(measure(name, arguments.seed))
        print(
            f"{name:24s} {rows[-1].analysis_s:5.2f} s  float64 {rows[-1].error_float64:.1e}  "
            f"float32 {rows[-1].error_float32:.1e}  {'ok' if rows[-1].passed else 'FAILED'}",
            flush=True,
        )
    facts: dict[str, object] = {
        "seed": arguments.seed,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} with {os.cpu_count()} cores",
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    document = {"schema_version": 1, "facts": facts, "rows": [asdict(row) for row in rows]}
    text = json.dumps(document, indent=1)
    (arguments.out / "exactness.json").write_text(text + "\n", encoding="utf-8")
    (arguments.out / "exactness.md").write_text(table(rows, facts), encoding="utf-8")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

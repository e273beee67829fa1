"""Bias and noise of the policy gradient's estimators, against enumeration on a small net.

    python benchmarks/bench_estimators.py

A net with ten agents is trained on scikit-learn's digits. All 1,024 masks of each of 64 images are
evaluated once, so the exact gradient of the expected loss is known, and every estimator draws its
batches from that table. Antithetic pairs (DisARM, Dong et al. 2020,
https://arxiv.org/abs/2006.10680) need two evaluations of the same image, so they get half the
images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.decore.estimators import ESTIMATORS
from compressor.decore.outcome import Outcome
from compressor.graph import channel_graph
from compressor.masks import ChannelMasks

RESULTS = Path(__file__).parent / "results"
AGENTS, IMAGES, WARM_UP = 10, 64, 200


class SmallNet(nn.Module):
    """Two convolutions with four and six agents, batch norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10) of images (N, 1, 8, 8)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(out, 2).flatten(1))
        return logits


@dataclass(frozen=True)
class Table:
    """What every mask of every image gives.

    Attributes:
        actions: (masks, agents).
        losses: (images, masks).
        gradients: d loss / d action, (images, masks, agents).
        reference: loss without a mask, (images,).
    """

    actions: Tensor
    losses: Tensor
    gradients: Tensor
    reference: Tensor

    def draw(self, p: Tensor, generator: torch.Generator) -> Outcome:
        """Draw one mask per image."""
        actions = (torch.rand(IMAGES, AGENTS, generator=generator) < p).double()
        return self.look_up(torch.arange(IMAGES), actions)

    def look_up(self, images: Tensor, actions: Tensor) -> Outcome:
        """Return the outcome of given actions on given images."""
        powers = 2.0 ** torch.arange(AGENTS - 1, -1, -1, dtype=torch.float64)
        masks = (actions @ powers).long()
        losses = self.losses[images, masks]
        right = torch.ones(len(images), dtype=torch.bool)
        return Outcome(
            actions, losses, self.reference[images], right, self.gradients[images, masks]
        )

    def exact(self, p: Tensor) -> Tensor:
        """Return the gradient of the expected loss with respect to the logits, (agents,)."""
        chances = (self.actions * p + (1 - self.actions) * (1 - p)).prod(dim=1)
        weighted = self.losses.mean(dim=0) * chances
        return weighted @ (self.actions - p)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    table = enumerate_masks(*trained_net())
    found = []
    for name, p in policies(arguments.seed).items():
        exact = table.exact(p)
        for estimator, draw in estimators(table, p, arguments.seed).items():
            samples = torch.stack([draw() for _ in range(arguments.draws)])
            found.append({"policy": name, "estimator": estimator, **figures(samples, exact)})
    RESULTS.mkdir(exist_ok=True)
    result = {"seed": arguments.seed, "draws": arguments.draws, "batch": IMAGES, "rows": found}
    (RESULTS / "estimators.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "estimators.md").write_text(_table(result))
    print(_table(result))


def trained_net() -> tuple[nn.Module, Tensor, Tensor]:
    """Train the net on digits; return it with the images that are enumerated."""
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(x))
    x, labels = x[order], labels[order]
    net = SmallNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(300):
        batch = torch.arange(step * 128, step * 128 + 128) % (len(x) - IMAGES)
        optimizer.zero_grad()
        F.cross_entropy(net(x[batch]), labels[batch]).backward()
        optimizer.step()
    return net.double().eval(), x[-IMAGES:].double(), labels[-IMAGES:]


def enumerate_masks(net: nn.Module, x: Tensor, labels: Tensor) -> Table:
    """Evaluate all masks of all images."""
    graph = channel_graph(net, x[:1])
    if graph.class_count != AGENTS:
        raise RuntimeError(f"{graph.class_count} agents instead of {AGENTS}")
    actions = torch.tensor(list(product((0.0, 1.0), repeat=AGENTS)), dtype=torch.float64)
    losses, gradients = [], []
    with ChannelMasks(net, graph) as masks:
        for image, label in zip(x, labels, strict=True):
            at = actions.clone().requires_grad_()
            masks.set(at)
            logits = net(image.expand(len(at), -1, -1, -1))
            loss = F.cross_entropy(logits, label.expand(len(at)), reduction="none")
            gradients.append(torch.autograd.grad(loss.sum(), at)[0])
            losses.append(loss.detach())
    stacked = torch.stack(losses)
    return Table(actions, stacked, torch.stack(gradients), stacked[:, -1].clone())


def policies(seed: int) -> dict[str, Tensor]:
    """Return the keep probabilities at which estimators are compared."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(AGENTS, generator=generator, dtype=torch.float64)
    return {
        "undecided (p = 0.5)": torch.full((AGENTS,), 0.5, dtype=torch.float64),
        "mixed (p = 0.1 to 0.9)": 0.1 + 0.8 * spread,
        "nearly sure (p = 0.02 or 0.98)": torch.where(spread > 0.4, 0.98, 0.02),
        "the paper's start (p = 0.999)": torch.full((AGENTS,), 0.999, dtype=torch.float64),
    }


def estimators(table: Table, p: Tensor, seed: int) -> dict[str, Callable[[], Tensor]]:
    """Return name -> a function that draws one batch and estimates; running means are warm."""
    made: dict[str, Callable[[], Tensor]] = {}
    for name, constructor in ESTIMATORS.items():
        estimator, generator = constructor(AGENTS), torch.Generator().manual_seed(seed)

        def draw(estimator=estimator, generator=generator) -> Tensor:  # type: ignore[no-untyped-def]
            return estimator(table.draw(p, generator), p)

        for _ in range(WARM_UP):
            draw()
        made[name] = draw
    generator = torch.Generator().manual_seed(seed)
    made["antithetic pairs"] = lambda: disarm(table, p, generator)
    return made


def disarm(table: Table, p: Tensor, generator: torch.Generator) -> Tensor:
    """Return the DisARM estimate (equation 10) of half the images, each with two actions."""
    images = torch.randperm(IMAGES, generator=generator)[: IMAGES // 2]
    uniform = torch.rand(len(images), AGENTS, generator=generator, dtype=torch.float64)
    one, other = (uniform < p).double(), (uniform > 1 - p).double()
    gap = table.look_up(images, one).losses - table.look_up(images, other).losses
    sign = torch.where(other > one, -1.0, 1.0) * (one != other)
    weight = torch.maximum(p, 1 - p)
    return (0.5 * gap[:, None] * sign * weight).mean(dim=0)


def figures(samples: Tensor, exact: Tensor) -> dict[str, float]:
    """Return bias, its own uncertainty and noise, all over the norm of the exact gradient."""
    size = exact.norm()
    noise = samples.var(dim=0).sum().sqrt()
    cosines = torch.nn.functional.cosine_similarity(samples, exact[None])
    return {
        "bias": float((samples.mean(dim=0) - exact).norm() / size),
        "bias_uncertainty": float(noise / len(samples) ** 0.5 / size),
        "noise": float(noise / size),
        "cosine": float(cosines.mean()),
    }


def _table(result: dict[str, object]) -> str:
    lines = [
        "# Estimators of the policy gradient against enumeration\n",
        f"Batches of {result['batch']} images, {result['draws']} draws, seed {result['seed']}. All "
        "but the cosine are shares of the exact gradient's norm. A bias below twice its "
        "uncertainty is none that was found. `python benchmarks/bench_estimators.py`\n",
        "| policy | estimator | bias | +- | noise of one batch | cosine of one batch |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:  # type: ignore[attr-defined]
        lines.append(
            f"| {row['policy']} | {row['estimator']} | {row['bias']:.3f} | "
            f"{row['bias_uncertainty']:.3f} | {row['noise']:.2f} | {row['cosine']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

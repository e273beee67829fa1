"""What rounding costs layer by layer, and the cheapest layers to leave in float.

A layer left in float keeps float weights and biases (`FakeQuantized.float_layers`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from compressor.quantization.fake import FakeQuantized

_FLOAT_BITS = 32


@dataclass(frozen=True)
class Judged:
    """A rounded network on some images.

    Attributes:
        score: mean of the metric, a fraction, higher is better.
        loss: mean, lower is better.
    """

    score: float
    loss: float


Judge = Callable[[FakeQuantized], Judged]


@dataclass(frozen=True)
class Sensitivity:
    """What rounding one layer costs.

    Attributes:
        layer: its name.
        alone: loss with only this layer's weights rounded, less that with no layer's.
        left: loss with all layers rounded, less that with this one left in float.
        extra_bytes: that its weights take more in float.
    """

    layer: str
    alone: float
    left: float
    extra_bytes: int


@dataclass(frozen=True)
class Mixture:
    """Some layers left in float.

    Attributes:
        layers: their names.
        extra_bytes: that their weights take more.
        judged: the network with these in float.
    """

    layers: tuple[str, ...]
    extra_bytes: int
    judged: Judged


@dataclass(frozen=True)
class Search:
    """What `cheapest_within` tried.

    Attributes:
        tried: in this order; the first leaves none in float, the second all.
        chosen: of these, None where not even all layers in float are good enough.
    """

    tried: tuple[Mixture, ...]
    chosen: Mixture | None


def sensitivities(fake: FakeQuantized, judge: Judge) -> tuple[Sensitivity, ...]:
    """Measure the loss with every layer rounded alone, and left in float alone.

    Activations between operators on integers are rounded throughout.

    Args:
        judge: of a network on images that its files are not tested on.

    Returns:
        In the order of execution. Leaves no layer in float.
    """
    everything = frozenset(fake.layers)

    def loss(left: Collection[str]) -> float:
        fake.float_layers = frozenset(left)
        return judge(fake).loss

    none_rounded, all_rounded = loss(everything), loss(())
    found = tuple(
        Sensitivity(
            name,
            loss(everything - {name}) - none_rounded,
            all_rounded - loss({name}),
            extra_bytes(fake, name),
        )
        for name in fake.layers
    )
    fake.float_layers = frozenset()
    return found


def cheapest_within(
    fake: FakeQuantized, judge: Judge, ranking: Sequence[Sensitivity], wanted_score: float
) -> Search:
    """Find a cheap set of layers that has to stay in float for a score.

    Layers come in by the loss that each saves per byte, until the score is reached; then those
    that turn out not to be needed go again, the largest first. Sets are measured, not added up.

    Args:
        ranking: as `sensitivities` returns it.
        wanted_score: in the units of `judge`.
    """
    bytes_of = {entry.layer: entry.extra_bytes for entry in ranking}
    tried: list[Mixture] = []

    def good_enough(layers: Sequence[str]) -> bool:
        fake.float_layers = frozenset(layers)
        tried.append(Mixture(tuple(layers), sum(bytes_of[n] for n in layers), judge(fake)))
        fake.float_layers = frozenset()
        return tried[-1].judged.score >= wanted_score

    order = sorted(ranking, key=lambda entry: entry.left / entry.extra_bytes, reverse=True)
    names = [entry.layer for entry in order]
    if good_enough(()) or not good_enough(names):
        reached = tried[-1] if len(tried) == 1 else None
        return Search(tuple(tried), reached)
    for count in range(1, len(names)):
        if good_enough(names[:count]):
            break
    else:
        return Search(tuple(tried), tried[1])
    chosen = tried[-1]
    for name in sorted(chosen.layers[:-1], key=lambda name: -bytes_of[name]):
        fewer = [other for other in chosen.layers if other != name]
        if good_enough(fewer):
            chosen = tried[-1]
    return Search(tuple(tried), chosen)


def extra_bytes(fake: FakeQuantized, layer: str) -> int:
    """Return what a layer's weights take more in float than as integers."""
    integer_bits = fake.scheme.weight_bits
    return fake.layers[layer].weight.numel() * (_FLOAT_BITS - integer_bits) // 8

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
    """What `cheapest_within` measured.

    Attributes:
        ranking: what rounding each layer costs; empty where that could not change the answer.
        tried: in this order; the first leaves none in float, the second all.
        chosen: of these, None where less than all layers in float is not good enough: files of
            integers have to hold some.
    """

    ranking: tuple[Sensitivity, ...]
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
    fake: FakeQuantized,
    judge: Judge,
    wanted_score: float,
    rank: Callable[[], Sequence[Sensitivity]],
) -> Search:
    """Find a cheap set of layers that has to stay in float for a score.

    Layers come in by the loss that each saves per byte, until the score is reached; then those
    that turn out not to be needed go again, the largest first. Sets are measured, not added up.

    Args:
        wanted_score: in the units of `judge`.
        rank: returns what `sensitivities` does; not called where no layer in float is needed, or
            not even all of them are good enough.
    """
    bytes_of = {name: extra_bytes(fake, name) for name in fake.layers}
    tried: list[Mixture] = []

    def within(layers: Sequence[str]) -> Mixture | None:
        fake.float_layers = frozenset(layers)
        tried.append(Mixture(tuple(layers), sum(bytes_of[n] for n in layers), judge(fake)))
        fake.float_layers = frozenset()
        return tried[-1] if tried[-1].judged.score >= wanted_score else None

    if (chosen := within(())) is not None or within([*fake.layers]) is None:
        return Search((), tuple(tried), chosen)
    ranking = tuple(rank())
    order = sorted(ranking, key=lambda entry: entry.left / entry.extra_bytes, reverse=True)
    needed = [entry.layer for entry in order]
    for count in range(1, len(needed)):
        if (chosen := within(needed[:count])) is not None:
            needed = needed[:count]
            break
    for name in sorted(needed[:-1], key=lambda name: -bytes_of[name]):
        fewer = [other for other in needed if other != name]
        if (found := within(fewer)) is not None:
            chosen, needed = found, fewer
    return Search(ranking, tuple(tried), chosen)


def extra_bytes(fake: FakeQuantized, layer: str) -> int:
    """Return what a layer's weights take more in float than as integers."""
    integer_bits = fake.scheme.weight_bits
    return fake.layers[layer].weight.numel() * (_FLOAT_BITS - integer_bits) // 8

"""What was tried for a network whose files lose accuracy; `first_aid` in report.json.

The figures of the first format are `first_aid`, those of further formats `first_aid_further`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from compress_export.sizes import mib


@dataclass(frozen=True)
class Remedy:
    """Something done to the whole network.

    Attributes:
        name: "equalization" or "bias correction".
        validation_score: mean of the metric, a fraction, of the network rounded as its files are.
        validation_loss: mean of the same.
        kept: whether that was better than before.
    """

    name: str
    validation_score: float
    validation_loss: float
    kept: bool


@dataclass(frozen=True)
class LayerCost:
    """What rounding one layer costs on the validation images.

    Attributes:
        layer: its name.
        loss_alone: added to the loss where only this layer's weights are rounded.
        loss_saved: taken off it where this layer alone is left in float.
        extra_bytes: that its weights take more in float.
    """

    layer: str
    loss_alone: float
    loss_saved: float
    extra_bytes: int


@dataclass(frozen=True)
class Mixture:
    """Layers left in float, together.

    Attributes:
        layers: their names.
        extra_bytes: that their weights take more.
        validation_score: mean of the metric, a fraction.
        kept: whether the files are made so.
    """

    layers: tuple[str, ...]
    extra_bytes: int
    validation_score: float
    kept: bool


@dataclass(frozen=True)
class FirstAid:
    """All that was tried for one format, and what it gave.

    Attributes:
        precision, format: whose rounding was measured, through the fake-quantized network.
        validation_score_float: mean of the metric, a fraction, before rounding.
        validation_score_rounded, validation_loss_rounded: with rounding alone.
        wanted_score: baseline less the accuracy budget, a fraction.
        remedies: in the order in which they were tried.
        layers: what rounding each costs; empty where the budget was not exceeded, or could not be
            kept with all of them in float.
        mixtures: sets of layers left in float that were tried; empty where it was not exceeded.
        note: why layers were not left in float although the budget was exceeded, or "".
    """

    precision: str
    format: str
    validation_score_float: float
    validation_score_rounded: float
    validation_loss_rounded: float
    wanted_score: float
    remedies: tuple[Remedy, ...]
    layers: tuple[LayerCost, ...] = ()
    mixtures: tuple[Mixture, ...] = ()
    note: str = ""

    @property
    def validation_score(self) -> float:
        """With everything that was kept."""
        scores = [r.validation_score for r in self.remedies if r.kept]
        scores += [m.validation_score for m in self.mixtures if m.kept]
        return scores[-1] if scores else self.validation_score_rounded

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Names of the layers that the files keep in float."""
        return next((m.layers for m in self.mixtures if m.kept), ())

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "remedies": [asdict(entry) for entry in self.remedies],
            "layers": [asdict(entry) for entry in self.layers],
            "mixtures": [asdict(m) | {"layers": list(m.layers)} for m in self.mixtures],
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> FirstAid:
        mixtures = (Mixture(**{**m, "layers": tuple(m["layers"])}) for m in entry["mixtures"])
        lists = {
            "remedies": tuple(Remedy(**remedy) for remedy in entry["remedies"]),
            "layers": tuple(LayerCost(**layer) for layer in entry["layers"]),
            "mixtures": tuple(mixtures),
        }
        return cls(**{**entry, **lists})

    @classmethod
    def of_report(cls, report: Mapping[str, Any]) -> tuple[FirstAid, ...]:
        """Return a report's entries, of one format each; older reports have the first alone."""
        entries = (report.get("first_aid"), *report.get("first_aid_further", ()))
        return tuple(cls.from_json(entry) for entry in entries if entry)

    @property
    def lines(self) -> list[str]:
        """For people."""
        found = [
            f"{self.precision} {self.format}: validation "
            f"{_percent(self.validation_score_float)} in float, "
            f"{_percent(self.validation_score_rounded)} rounded, "
            f"{_percent(self.validation_score)} with first aid"
        ]
        for remedy in self.remedies:
            score, loss = _percent(remedy.validation_score), remedy.validation_loss
            done = "kept" if remedy.kept else "not kept"
            found.append(f"{remedy.name}: {score}, loss {loss:.4f}, {done}")
        for mixture in self.mixtures:
            if mixture.kept:
                found.append(
                    f"{len(mixture.layers)} of {len(self.layers)} layers stay float, "
                    f"{mib(mixture.extra_bytes)} MiB more: {', '.join(mixture.layers)}"
                )
        return [*found, self.note] if self.note else found


def _percent(score: float) -> str:
    return f"{100 * score:.2f} %"

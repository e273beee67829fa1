"""The last layer of a classifier: found as what changes with the number of classes."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import InputError
from compressor.models import build_model


@dataclass(frozen=True)
class Head:
    """The last layer of a network, or the last layers where it has several outputs.

    Attributes:
        num_classes: outputs of the network.
        tensors: names of the parameters and buffers whose shape follows the number of classes.
    """

    num_classes: int
    tensors: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the modules that hold the tensors, in the network's order."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.tensors))


def find_head(architecture: str, num_classes: int) -> Head:
    """Build a network twice, with another number of classes the second time, and compare shapes.

    So no layer has to be told from another by its kind or place: convolutions, several heads and
    norms behind them are found alike.

    Args:
        architecture: as `build_model` takes it.

    Raises:
        InputError: nothing in the network follows the number of classes.
    """
    shapes = {n: t.shape for n, t in build_model(architecture, num_classes).state_dict().items()}
    other = build_model(architecture, num_classes + 1).state_dict()
    tensors = tuple(
        name for name, shape in shapes.items() if name in other and other[name].shape != shape
    )
    if not tensors:
        raise InputError(
            f"model {architecture!r} has no last layer to renew: no tensor follows the number of "
            "classes; its factory has to make as many outputs as num_classes says"
        )
    return Head(num_classes, tensors)

"""A network whose batch norms keep their statistics while it trains."""

from __future__ import annotations

from torch import nn

from benchmarks.crash.network import Small


class FrozenNorm(nn.BatchNorm2d):
    """Stays in eval mode."""

    def train(self, mode: bool = True) -> FrozenNorm:
        """Ignore the mode."""
        return super().train(False)


def frozen(num_classes: int) -> nn.Module:
    """Return the small network of `benchmarks.crash`, frozen in this way and without dropout."""
    model = Small(num_classes)
    model.bn1, model.bn2 = FrozenNorm(24).eval(), FrozenNorm(32).eval()
    model.dropout.p = 0.0
    return model

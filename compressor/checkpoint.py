"""Files from which interrupted work goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compressor import ranks
from compressor.whole_files import whole_file


def random_state() -> dict[str, Any]:
    """Return the state of torch's global generators, which dropout draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: dict[str, Any]) -> None:
    """Go back to what `random_state` returned; devices that are not there are skipped."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count() and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@dataclass(frozen=True)
class Checkpoint:
    """One file that always holds a whole state: it is replaced in one step.

    Attributes:
        path: where the state lives; None keeps nothing.
    """

    path: Path | None

    def load(self) -> dict[str, Any] | None:
        """Return the state, or None where there is none yet; the first rank's, in all of them.

        Tensors are on the CPU, wherever they were when they were saved.
        """
        return ranks.from_first(self._read)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state; a crash at any moment leaves the old or the new one."""
        if self.path is None or not ranks.is_first():
            return
        # A file object of ours: torch's own writer turns a full disk into a RuntimeError.
        with whole_file(self.path) as unfinished, unfinished.open("wb") as file:
            torch.save(state, file)

    def _read(self) -> dict[str, Any] | None:
        if self.path is None or not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        return state

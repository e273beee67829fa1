"""A target's rules, and what is kept of a check against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHECKED_BY_RULE = "checked by rule, not measured"

Lines = Callable[[Path], list[str]]


def nothing(path: Path) -> list[str]:
    """Remarks of a target that has none."""
    return []


@dataclass(frozen=True)
class Profile:
    """The rules of one target.

    Attributes:
        name: such as "x86-vnni" or "edge-tpu".
        violations: one line per broken rule, naming the node or tensor.
        remarks: one line per thing that costs time there.
        benchable: the bench runs such a file as the target does, on CPU cores; False for what
            only an accelerator or a microcontroller can time.
    """

    name: str
    violations: Lines
    remarks: Lines = nothing
    benchable: bool = True


@dataclass(frozen=True)
class CheckedProfile:
    """What manifest.json says of the profile that a file keeps to.

    Attributes:
        status: `CHECKED_BY_RULE`: no file has run on its target when it is exported.
    """

    name: str
    benchable: bool
    remarks: tuple[str, ...] = ()
    status: str = CHECKED_BY_RULE

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"remarks": list(self.remarks)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> CheckedProfile:
        return cls(**{**entry, "remarks": tuple(entry["remarks"])})

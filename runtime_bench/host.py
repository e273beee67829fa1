"""What this machine is, and whether it can speak for a board."""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime_bench.manifest import BoardRef

BOARD_VARIABLE = "COMPRESS_EXPORT_BOARD"

_ARCHES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
# Names the kernel uses -> names the descriptors and vendors use for the same instructions.
_ISA_OF_FLAG = {
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
    "avx512f": "avx512",
}
# Dot products of bytes. INT8 kernels that use them are other and faster ones.
_DOT_PRODUCTS = {
    "x86_64": frozenset({"vnni", "avx512_vnni", "avx_vnni", "amx_int8"}),
    "aarch64": frozenset({"dotprod", "i8mm"}),
}
_NOTABLE = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512", "avx512f", "avx512bw", "avx512_vnni",
    "avx_vnni", "vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "neon", "asimd", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclass(frozen=True)
class HostFacts:
    """The machine this runs on.

    Attributes:
        arch: as descriptors write it, e.g. "x86_64", "aarch64".
        isa: the instruction sets that matter to inference, e.g. "avx512_vnni", "dotprod".
        flags: everything the kernel reports, and the isa names.
        cores: those this process may use.
        model: the CPU's or the board's name.
    """

    arch: str
    isa: tuple[str, ...]
    flags: frozenset[str]
    cores: int
    model: str
    system: str
    python: str

    def to_json(self) -> dict[str, Any]:
        return {
            "arch": self.arch,
            "isa": list(self.isa),
            "cores": self.cores,
            "model": self.model,
            "system": self.system,
            "python": self.python,
        }


def host_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> HostFacts:
    """Facts of this machine, from platform and /proc/cpuinfo."""
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    flags = cpu_flags(text)
    return HostFacts(
        arch=_arch(),
        isa=tuple(name for name in _NOTABLE if name in flags),
        flags=flags,
        cores=_cores(),
        model=_model(text),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Flags that all cores of a /proc/cpuinfo text share ("flags" on x86, "Features" on Arm)."""
    cores = [set(value.split()) for key, value in _entries(cpuinfo) if key in ("flags", "Features")]
    # Big and little cores may differ; code runs on either, so only what all have counts.
    shared = set.intersection(*cores) if cores else set()
    return frozenset(shared | {_ISA_OF_FLAG[flag] for flag in shared if flag in _ISA_OF_FLAG})


def missing_isa(host: HostFacts, board: BoardRef) -> tuple[str, ...]:
    """The board's instruction sets that this host lacks."""
    return tuple(name for name in board.isa if _spelled(name) not in host.flags)


def surplus_isa(host: HostFacts, board: BoardRef) -> tuple[str, ...]:
    """The host's dot-product instructions, where the board has none: it runs slower kernels.

    A board that names no instruction sets at all is any of its architecture.
    """
    known = _DOT_PRODUCTS.get(board.arch, frozenset())
    if not board.isa or known & {_spelled(name) for name in board.isa}:
        return ()
    return tuple(sorted(known & host.flags))


def host_matches(host: HostFacts, board: BoardRef) -> bool:
    """Whether the host runs the board's kernels: its architecture, all of its instruction sets,
    and no dot products of bytes that the board lacks."""
    same = host.arch == board.arch and not missing_isa(host, board)
    return same and not surplus_isa(host, board)


def is_board(board: BoardRef, environment: Mapping[str, str] | None = None) -> bool:
    """Whether this machine says it is the board: COMPRESS_EXPORT_BOARD holds the board's id."""
    values = os.environ if environment is None else environment
    return values.get(BOARD_VARIABLE) == board.id


def _spelled(name: str) -> str:
    """A descriptor's spelling in the kernel's: "SSE4.2" -> "sse4_2"."""
    return name.strip().lower().replace("-", "_").replace(".", "_")


def _arch() -> str:
    machine = platform.machine().lower()
    arch = _ARCHES.get(machine, machine)
    # A 32-bit system on a 64-bit kernel still says aarch64, but runs 32-bit code.
    return "armv7l" if arch == "aarch64" and struct.calcsize("P") == 4 else arch


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _model(cpuinfo: str) -> str:
    device_tree = Path("/proc/device-tree/model")
    if device_tree.exists():
        return device_tree.read_text(encoding="utf-8", errors="replace").strip("\x00 \n")
    names = [value for key, value in _entries(cpuinfo) if key == "model name"]
    return names[0] if names else platform.processor() or platform.machine()


def _entries(cpuinfo: str) -> list[tuple[str, str]]:
    lines = [line.partition(":") for line in cpuinfo.splitlines()]
    return [(key.strip(), value.strip()) for key, _, value in lines]

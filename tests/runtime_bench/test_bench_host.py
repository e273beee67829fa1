import platform
import subprocess
import sys
from pathlib import Path

import pytest

from runtime_bench import host_facts, host_matches, is_board
from runtime_bench.host import HostFacts, cpu_flags, missing_isa, surplus_isa
from runtime_bench.manifest import BoardRef
from runtime_bench.memory import parse_status

X86 = "processor : 0\nmodel name : Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
CORTEX_A76 = "processor : 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU part : 0xd0b\n"
CORTEX_A72 = "processor : 0\nFeatures\t: fp asimd crc32\nCPU part : 0xd08\n"


def board(arch: str, *isa: str) -> BoardRef:
    return BoardRef("some-board", "linux", arch, isa, 4)


def host(arch: str, cpuinfo: str) -> HostFacts:
    return HostFacts(arch, (), cpu_flags(cpuinfo), 4, "a CPU", "Linux", "3.11")


@pytest.mark.parametrize(
    ("machine", "target", "matches"),
    [
        (host("x86_64", X86), board("x86_64"), True),
        (host("x86_64", X86), board("x86_64", "avx2", "avx512_vnni"), True),
        (host("x86_64", X86), board("x86_64", "VNNI", "AVX512-VNNI"), True),
        (host("x86_64", X86), board("x86_64", "avx_vnni"), False),
        (host("x86_64", X86), board("x86_64", "avx2"), False),
        (host("x86_64", X86.replace("avx512_vnni", "")), board("x86_64", "avx2"), True),
        (host("aarch64", CORTEX_A76), board("aarch64", "neon"), False),
        (host("x86_64", X86), board("aarch64"), False),
        (host("aarch64", CORTEX_A76), board("aarch64", "neon", "dotprod", "fp16"), True),
        (host("aarch64", CORTEX_A72), board("aarch64", "neon"), True),
        (host("aarch64", CORTEX_A72), board("aarch64", "neon", "dotprod"), False),
        (host("x86_64", ""), board("x86_64", "avx2"), False),
        (host("x86_64", X86), board("armv7e-m"), False),
    ],
)
def test_a_host_speaks_for_its_own_kind_only(
    machine: HostFacts, target: BoardRef, matches: bool
) -> None:
    assert host_matches(machine, target) is matches


def test_what_is_missing_is_named() -> None:
    wanted = board("aarch64", "neon", "dotprod", "i8mm")
    assert missing_isa(host("aarch64", CORTEX_A72), wanted) == ("dotprod", "i8mm")


def test_what_makes_a_host_too_fast_is_named() -> None:
    pi4 = board("aarch64", "neon")
    assert surplus_isa(host("aarch64", CORTEX_A76), pi4) == ("dotprod",)
    assert surplus_isa(host("aarch64", CORTEX_A72), pi4) == ()


def test_only_what_all_cores_have_counts() -> None:
    assert "dotprod" in cpu_flags(CORTEX_A76)
    assert "dotprod" not in cpu_flags(CORTEX_A76 + CORTEX_A72)


def test_facts_of_this_machine(tmp_path: Path) -> None:
    facts = host_facts()
    assert facts.cores >= 1
    assert facts.arch == {"AMD64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine(), platform.machine()
    )
    assert set(facts.to_json()) == {"arch", "isa", "cores", "model", "system", "python"}
    assert host_facts(tmp_path / "no-cpuinfo").flags == frozenset()


def test_the_board_names_itself() -> None:
    target = board("x86_64")
    assert is_board(target, {"COMPRESS_EXPORT_BOARD": "some-board"})
    assert not is_board(target, {"COMPRESS_EXPORT_BOARD": "another"})
    assert not is_board(target, {})


def test_status_sizes_are_kibibytes() -> None:
    text = "Name:\tpython\nVmHWM:\t    2132 kB\nVmRSS:\t    1000 kB\nThreads:\t1\n"
    assert parse_status(text) == {"VmHWM": 2132 * 1024, "VmRSS": 1000 * 1024}


_ALLOCATION = """
import resource
import numpy as np
from runtime_bench.memory import peak_rss_bytes, rss_bytes
before = rss_bytes()
held = np.ones(64 * 2**20, dtype=np.uint8)
after, peak = rss_bytes(), peak_rss_bytes()
assert before is not None and after is not None and peak is not None
assert after - before >= 0.9 * held.nbytes, (before, after)
assert peak >= 0.99 * after, (peak, after)
assert peak <= 1.01 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, peak
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_rss_follows_an_allocation() -> None:
    """In a process of its own: a large one may have the memory already."""
    command = [sys.executable, "-c", _ALLOCATION]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

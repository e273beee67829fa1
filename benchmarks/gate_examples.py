"""Gates over one finished job, as docs/gate.md shows them: passing, failing and regressing ones.

    python -m benchmarks.gate_examples DIR

Writes benchmarks/results/gate.md. Limits and the old run are made from DIR's own figures: half of
each figure as its limit, and an old run whose files were better.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from compress_export.cli import main as command_line

RESULTS = Path(__file__).parent / "results" / "gate.md"
FAIL_ON = ("--fail-on", "size:2% latency:10% top1:0.2")


def main() -> None:
    """Run all gates on the folder of the command line and write what they print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="DIR of a finished job, with its bundle")
    folder = parser.parse_args().folder.absolute()
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    with _inside_a_folder():
        Path("DIR").symlink_to(folder)
        for name, limit in _half_of(report).items():
            Path(f"{name}.yaml").write_text(f"limits:\n  {name}: {limit}\n", encoding="utf-8")
        Path("old.json").write_text(json.dumps(_better(report)), encoding="utf-8")
        sections = [
            _section("It passes", ()),
            _section("Another board's budgets", ("--board", "rpi5", "--require-measured")),
            *(_section(f"`limits: {{{n}: {v}}}`", ("--limits", f"{n}.yaml"))
              for n, v in _half_of(report).items()),
            _section("Against itself", ("--baseline", "DIR", *FAIL_ON)),
            _section("Against a better run", ("--baseline", "old.json", *FAIL_ON)),
            _section("In CI", ("--limits", "drop.yaml", "--annotations")),
            _section("By layer", ("--why",)),
        ]  # fmt: skip
    host = report["environment"]["host"]
    head = f"# The gate on {report['model']} for {report['board']}\n\n"
    where = f"Files measured on {host['model']}, {host['cores']} cores.\n\n"
    made = "Made by `python -m benchmarks.gate_examples DIR`. "
    RESULTS.write_text(head + made + where + "\n".join(sections), encoding="utf-8")
    sys.stdout.write(f"written to {RESULTS}\n")


def _section(title: str, arguments: tuple[str, ...]) -> str:
    said = io.StringIO()
    with redirect_stdout(said):
        code = command_line(["gate", "DIR", *arguments])
    words = " ".join(f'"{word}"' if " " in word else word for word in arguments)
    lines = "\n".join(line.rstrip() for line in said.getvalue().splitlines())
    shown = f"$ compress-export gate DIR {words}".rstrip()
    return f"## {title}\n\n```\n{shown}\n{lines}\n$ echo $?\n{code}\n```\n"


def _half_of(report: dict[str, Any]) -> dict[str, str]:
    """A limit of each kind that the first shipped file misses by the factor 2."""
    file = next(a for a in report["artifacts"] if a["path"].startswith("bundle/"))
    drop = 100 * (report["stages"]["baseline"]["top1"] - file["top1"])
    return {
        "size": f"{file['size_bytes'] // 2}B",
        "weights": f"{sum(file['weight_bytes'].values()) // 2}B",
        "activations": f"{file['activation_bytes'] // 2}B",
        "memory": f"{file['peak_rss_bytes'] // 2}B",
        "latency": f"{1000 * file['latency_ms']['p90'] / 2:.0f}us",
        "drop": f"{drop / 2:.3f} points",
    }


def _better(report: dict[str, Any]) -> dict[str, Any]:
    """An old run with files 5 % smaller, 20 % faster and half a point more accurate."""
    old = copy.deepcopy(report)
    for file in old["artifacts"]:
        file["size_bytes"] = round(0.95 * file["size_bytes"])
        file["latency_ms"]["p90"] *= 0.8
        file["top1"] += 0.005
    return old


@contextmanager
def _inside_a_folder() -> Iterator[None]:
    """Work in an empty folder, so that the shown commands have short paths."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)


if __name__ == "__main__":
    main()

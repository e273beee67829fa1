"""One process that gives mutated inputs to one parser; `__main__.py` starts it.

It goes on after a finding. A hang in native code or a crash ends it: the input is the file that
lies in the target's folder then, and the driver counts it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_OURS = ("boards", "compress_export", "compressor", "exporters", "runtime_bench")
_MOST_GROWTH_BYTES = 512 * 2**20
_SAVE_EVERY_S = 2.0


@dataclass
class Tally:
    """What a session did so far.

    Attributes:
        accepted, refused: inputs that were read, or refused with an error of ours.
        findings: what must not happen -> times.
        slowest_s: CPU seconds of the slowest input.
        grown_bytes: the most that one input added to the peak of the resident set.
    """

    accepted: int = 0
    refused: int = 0
    findings: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    grown_bytes: int = 0


def main() -> None:
    """Fuzz until the wanted number of inputs is reached."""
    options = _options()
    import atheris

    with atheris.instrument_imports(include=list(_OURS)):
        from benchmarks.fuzz.targets import TARGETS, fresh_folder
        from benchmarks.fuzz.watch import TooLong, Watch

        target = TARGETS[options.target]
        scratch = fresh_folder(options.work / options.target / "scratch")
        parse, errors = target.prepare(scratch)
        corpus = _corpus(options.work / options.target / "corpus", target.seeds())
        parse_first = scratch / target.file  # imports what the parser imports by itself
        parse_first.write_bytes(target.seeds()[0])
        _quietly(parse, parse_first)
    tempfile.tempdir = str(scratch)
    watch, tally = Watch(scratch), Tally()
    state = {"saved_at": 0.0}

    def one(data: bytes) -> None:
        path = scratch / target.file
        path.write_bytes(data)
        started = time.process_time()
        found = ""
        try:
            with watch.armed():
                parse(path)
            tally.accepted += 1
        except errors:
            tally.refused += 1
        except TooLong as error:
            found = f"more than 5 s of CPU in {_place(error)}"
        except Exception as error:
            found = f"{type(error).__name__} in {_place(error)}: {str(error)[:120]}"
        tally.slowest_s = max(tally.slowest_s, time.process_time() - started)
        tally.grown_bytes = max(tally.grown_bytes, watch.grown_bytes)
        if watch.grown_bytes > _MOST_GROWTH_BYTES:
            found = found or f"more than {_MOST_GROWTH_BYTES // 2**20} MiB"
        for text in [found, *watch.seen]:
            if text:
                _keep(options.work / options.target / "findings", text, data)
                tally.findings[text] = tally.findings.get(text, 0) + 1
        _save_or_end(tally, options, state)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if target.mutate is not None and chance.random() < 0.7:
            try:
                return target.mutate(data, chance)[:max_size]
            except Exception:  # an input that has lost its form already
                pass
        return bytes(atheris.Mutate(data, max_size))

    longest = max(map(len, target.seeds()))
    flags = [
        f"-seed={options.seed}", f"-max_len={max(4096, 3 * longest)}", "-rss_limit_mb=0",
        "-timeout=3600", "-report_slow_units=3600", "-detect_leaks=0", "-verbosity=0", str(corpus),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags], one, custom_mutator=mutate)
    atheris.Fuzz()


def _save_or_end(tally: Tally, options: argparse.Namespace, state: dict[str, float]) -> None:
    done = tally.accepted + tally.refused + sum(tally.findings.values())
    if done >= options.inputs or time.monotonic() - state["saved_at"] > _SAVE_EVERY_S:
        state["saved_at"] = time.monotonic()
        options.tally.write_text(json.dumps(asdict(tally)), encoding="utf-8")
    if done >= options.inputs:
        os._exit(0)  # libFuzzer counts by itself, and differently


def _quietly(parse: Any, path: Path) -> None:
    try:
        parse(path)
    except Exception:
        return


def _corpus(folder: Path, first: list[bytes]) -> Path:
    """The inputs that earlier sessions found worth keeping, beside the seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(first):
        (folder / f"seed-{number}").write_bytes(content)
    return folder


def _place(error: BaseException) -> str:
    """The innermost line of our own code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(f"/{name}/" in f.filename for name in _OURS)] or frames
    last = ours[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno} {last.name}"


def _keep(folder: Path, text: str, data: bytes) -> None:
    """Keep the first input of a finding."""
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
    if not (folder / name).exists():
        (folder / name).write_bytes(data)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8", errors="replace")


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("target")
    made.add_argument("--inputs", type=int, required=True)
    made.add_argument("--seed", type=int, required=True)
    made.add_argument("--work", type=Path, required=True)
    made.add_argument("--tally", type=Path, required=True)
    return made.parse_args()


if __name__ == "__main__":
    main()

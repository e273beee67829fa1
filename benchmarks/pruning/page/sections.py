"""The generated parts of docs/benchmarks.md: each says its file, its command, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pruning import results
from benchmarks.pruning.page.comparison import (
    Comparison,
    area_table,
    compare,
    environments,
    glance,
    target_table,
    time_table,
    title,
)
from benchmarks.pruning.page.file_tables import latency_table, showcase_table, tiny_table
from benchmarks.pruning.page.markdown import picture
from benchmarks.pruning.page.other_tables import (
    baseline_table,
    estimator_tables,
    screening_table,
    shrunk_table,
    speedup_table,
    step_table,
    worth_table,
)
from benchmarks.pruning.page.records import Entry, Row, read_entries, read_json, rows_of

COMPARE = "python -m benchmarks.pruning.compare"


@dataclass(frozen=True)
class Found:
    """Everything that was measured so far.

    Attributes:
        baselines: rows of baselines.jsonl.
        runs: entries of runs.jsonl, read on the test images.
        screening: entries of screening.jsonl, read on the validation images.
        comparisons: of the runs.
        showcase: rows of showcase.jsonl that saw all test images.
        tiny: rows of tiny.jsonl.
        latency_search: rows of latency_search.jsonl.
        single: content of the files that are one JSON object, by name; absent where there is none.
    """

    baselines: Sequence[Row]
    runs: Sequence[Entry]
    screening: Sequence[Entry]
    comparisons: Sequence[Comparison]
    showcase: Sequence[Row]
    tiny: Sequence[Row]
    latency_search: Sequence[Row]
    single: Mapping[str, Row]

    @classmethod
    def read(cls, folder: Path) -> Found:
        """Read all results files.

        Args:
            folder: of the comparison's files; those of benchmarks/bench_*.py are beside it.
        """
        baselines = list(results.rows(folder / "baselines.jsonl"))
        runs = read_entries(folder / "runs.jsonl")
        names = ("estimators", "worth", "step", "speedup")
        single = {name: read_json(folder.parent / f"{name}.json") for name in names}
        return cls(
            baselines,
            runs,
            read_entries(folder / "screening.jsonl"),
            compare(runs, baselines),
            [row for row in results.rows(folder / "showcase.jsonl") if row["images"] is None],
            list(results.rows(folder / "tiny.jsonl")),
            list(results.rows(folder / "latency_search.jsonl")),
            {name: content for name, content in single.items() if content is not None},
        )


def _source(file: str, command: str, facts: str = "") -> str:
    """Say where a table comes from: file, command, and what else matters."""
    link = f"[{file}](../benchmarks/results/{file})"
    return f"From {link}; `{command}`. {facts}".rstrip() + "\n"


def _baselines(found: Found) -> str:
    if not found.baselines:
        return ""
    command = "python -m benchmarks.pruning.baselines"
    where = environments(found.baselines)
    return "\n".join(
        [_source("pruning/baselines.jsonl", command, where), baseline_table(found.baselines)]
    )


def _glance(found: Found) -> str:
    text = glance(found.comparisons)
    if not text:
        return ""
    note = (
        "The best peer is the one, of those that were run there, that did best on these very test "
        "images, with either recipe: among them the choice is in its favour."
    )
    return "\n".join([_source("pruning/runs.jsonl", COMPARE, note), text])


def _accuracy(found: Found) -> str:
    if not found.comparisons:
        return ""
    parts = [
        _source("pruning/runs.jsonl", COMPARE, environments(rows_of(found.runs))),
        picture("accuracy-macs", "Top-1 against the MACs left, one panel per network"),
        picture("accuracy-bytes", "Top-1 against the bytes of the INT8 weights"),
    ]
    for comparison in found.comparisons:
        parts += [f"### {title(comparison.target)}\n", target_table(comparison)]
    return "\n".join(parts)


def _areas(found: Found) -> str:
    text = area_table(found.comparisons)
    return "\n".join([_source("pruning/runs.jsonl", COMPARE), text]) if text else ""


def _time(found: Found) -> str:
    text = time_table(found.comparisons)
    if not text:
        return ""
    return "\n".join(
        [
            _source("pruning/runs.jsonl", COMPARE, "Means over seeds."),
            picture("time-to-result", "Time of search and of fine-tuning per method"),
            text,
        ]
    )


def _showcase(found: Found) -> str:
    if not found.showcase:
        return ""
    command = "python -m benchmarks.pruning.showcase"
    parts = [
        _source("pruning/showcase.jsonl", command, environments(found.showcase)),
        picture("showcase", "Size, evaluation time, accuracy and speed-up of every file"),
    ]
    for row in found.showcase:
        counts = ", ".join(f"{role} {count:,}" for role, count in row["parameters"].items())
        parts += [
            f"### {row['network']}: `{row['slim']}`\n",
            f"{row['test_images']:,} test images, {row['threads']} thread(s), load average "
            f"{row['load_average']:.2f}. Parameters: {counts}.\n",
            showcase_table(row),
        ]
    return "\n".join(parts)


def _tiny(found: Found) -> str:
    if not found.tiny:
        return ""
    command = "python -m benchmarks.pruning.tiny"
    where = environments(found.tiny)
    return "\n".join([_source("pruning/tiny.jsonl", command, where), tiny_table(found.tiny)])


def _latency(found: Found) -> str:
    rows = found.latency_search
    if not rows:
        return ""
    command = "python -m benchmarks.pruning.latency_search"
    return "\n".join(
        [
            _source("pruning/latency_search.jsonl", command, environments(rows)),
            picture("accuracy-latency", "Top-1 of the INT8 files against their latency"),
            latency_table(rows),
        ]
    )


def _screening(found: Found) -> str:
    text = screening_table(found.screening)
    if not text:
        return ""
    where = f"**Validation images, one run a row.** {environments(rows_of(found.screening))}"
    return "\n".join([_source("pruning/screening.jsonl", f"{COMPARE} --screen", where), text])


def _estimators(content: Row) -> str:
    command = "python benchmarks/bench_estimators.py"
    facts = (
        f"Batches of {content['batch']} images, {content['draws']} draws, seed {content['seed']}."
    )
    return "\n".join([_source("estimators.json", command, facts), estimator_tables(content)])


def _worth(content: Row) -> str:
    asked = content["arguments"]
    facts = (
        f"{asked['network']} on the way to {100 * asked['share']:g} % of the MACs; estimators saw "
        f"{asked['batches']} batches, the truth is of {asked['truth_batches']} others, seed "
        f"{asked['seed']}."
    )
    command = "python -m benchmarks.pruning.worth"
    return "\n".join([_source("worth.json", command, facts), worth_table(content)])


def _step(content: Row) -> str:
    facts = (
        f"Medians, batches of {content['batch']}, {content['threads']} thread(s), "
        f"torch {content['torch']}."
    )
    return "\n".join(
        [
            _source("step.json", "python -m benchmarks.bench_step", facts),
            step_table(content),
            picture("epoch-time", "Time of a training step against the MACs left"),
            shrunk_table(content),
        ]
    )


def _speedup(content: Row) -> str:
    facts = content["facts"]
    where = (
        f"{facts['network']} on {facts['machine']}, {facts['threads']} thread(s), "
        f"{' and '.join(facts['runtimes'])}, load average {facts['load_average']}, {facts['date']}."
    )
    return "\n".join([_source("speedup.json", facts["command"], where), speedup_table(content)])


def _single(name: str, section: Callable[[Row], str]) -> Callable[[Found], str]:
    """Return a part of the page that is made of one file; nothing where it isn't there yet."""

    def text(found: Found) -> str:
        content = found.single.get(name)
        return "" if content is None else section(content)

    return text


SECTIONS: Mapping[str, Callable[[Found], str]] = {
    "glance": _glance,
    "baselines": _baselines,
    "accuracy": _accuracy,
    "areas": _areas,
    "time": _time,
    "showcase": _showcase,
    "tiny": _tiny,
    "latency": _latency,
    "screening": _screening,
    "estimators": _single("estimators", _estimators),
    "worth": _single("worth", _worth),
    "step": _single("step", _step),
    "speedup": _single("speedup", _speedup),
}
"""Name of a generated part -> its text; nothing where its file isn't there yet."""

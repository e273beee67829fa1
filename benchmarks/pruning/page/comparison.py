"""What the finished runs say: accuracy, differences, areas and time, per network and target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.pruning.page.markdown import number, table, with_range
from benchmarks.pruning.page.records import (
    OURS,
    OWN_RECIPE,
    Entry,
    Row,
    Target,
    by_target,
    continued_of,
    right_answers,
)
from benchmarks.pruning.statistics import Difference, area_under, paired_difference


@dataclass(frozen=True)
class Comparison:
    """All methods at one target.

    Attributes:
        target: that they share.
        entries: one per method.
        ours: the entry of the default agents, if they ran.
        continued: the unpruned network after as many epochs, if it ran.
        baseline: row of the network that all started from, if it is there.
        differences: of the default agents to every other method, by its name.
    """

    target: Target
    entries: Sequence[Entry]
    ours: Entry | None
    continued: Entry | None
    baseline: Row | None
    differences: dict[str, Difference]

    def best(self, *, peers: bool) -> Entry | None:
        """Return the most accurate Torch-Pruning run, or the best of our other methods."""
        others = [e for e in self.entries if e.is_peer == peers and e is not self.ours]
        return max(others, key=lambda e: e.mean("test_top1") or 0.0, default=None)


def compare(entries: Sequence[Entry], baselines: Sequence[Row]) -> list[Comparison]:
    """Compare the default agents with everything else at each target."""
    made = []
    for target, found in by_target(entries).items():
        ours = max((e for e in found if e.variant == OURS), key=lambda e: len(e.rows), default=None)
        continued = continued_of(entries, target)
        baseline = next((row for row in baselines if row["network"] == target.network), None)
        others = [e for e in (*found, continued) if e is not None and e is not ours]
        differences = _differences(ours, others, baseline)
        made.append(Comparison(target, found, ours, continued, baseline, differences))
    return made


def _differences(
    ours: Entry | None, others: Iterable[Entry], baseline: Row | None
) -> dict[str, Difference]:
    if ours is None:
        return {}
    right = ours.right()
    theirs = {e.method: e.right() for e in others if right.keys() & e.rows.keys()}
    if baseline is not None:
        # One network, from which the runs of all seeds start.
        theirs["baseline"] = dict.fromkeys(right, right_answers(baseline))
    return {name: paired_difference(right, other) for name, other in theirs.items()}


def glance(comparisons: Sequence[Comparison]) -> str:
    """Return one line per target: the default agents, the best peer, the best of our others."""
    rows = []
    for c in comparisons:
        if c.ours is None:
            continue
        cells = [title(c.target), str(len(c.ours.rows)), _top1(c.ours)]
        for other in (c.best(peers=True), c.best(peers=False)):
            cells += _against(c, other) if other else ["", ""]
        continued = c.differences.get(c.continued.method) if c.continued else None
        rows.append([*cells, difference_text(continued)])
    if not rows:
        return ""
    header = [
        "target", "seeds", f"`{OURS}` top-1 %", "best peer, top-1 %", f"`{OURS}` minus it",
        "best of our other methods, top-1 %", f"`{OURS}` minus it", f"`{OURS}` minus continued",
    ]  # fmt: skip
    return table(header, rows)


def _against(c: Comparison, other: Entry) -> list[str]:
    return [f"`{other.method}` {_top1(other)}", difference_text(c.differences.get(other.method))]


def target_table(c: Comparison) -> str:
    """Return the table of one target: accuracy, differences and what is left, per method."""
    shown = sorted(
        (e for e in c.entries if not (e.own_recipe and _with_our_recovery(c, e))),
        key=lambda e: (e is not c.ours, e.is_peer, -(e.mean("test_top1") or 0.0)),
    )
    second = any(_with_own_recipe(c, e) for e in shown)
    rows = []
    if c.baseline is not None:
        top1, whole = c.baseline["test_top1"], _whole_bytes(c)
        cells = ["baseline", "1", number(top1, 2, scale=100), *_difference_cells(c, "baseline")]
        cells += ["", ""] if second else []
        rows.append([*cells, "100.0", "100.0", number(whole, 1, scale=1 / 1024)])
    if c.continued is not None:
        rows.append(["continued baseline", *_method_cells(c, c.continued, second=second)])
    rows += [[f"`{e.method}`", *_method_cells(c, e, second=second)] for e in shown]
    header = ["method", "seeds", "top-1 %", f"`{OURS}` minus it", f"`{OURS}` is"]
    header += ["its own recipe: top-1 %", f"`{OURS}` minus that"] if second else []
    return table([*header, "MACs %", "weight bytes %", "INT8 weights KiB"], rows)


def _method_cells(c: Comparison, entry: Entry, *, second: bool) -> list[str]:
    cells = [str(len(entry.rows)), _top1(entry), *_difference_cells(c, entry.method)]
    if second:
        own = _with_own_recipe(c, entry)
        difference = c.differences.get(own.method) if own else None
        cells += [_top1(own) if own else "", difference_text(difference)]
    return [
        *cells,
        number(entry.mean("shares", "macs"), 1, scale=100),
        number(entry.mean("shares", "weight_bytes"), 1, scale=100),
        number(entry.mean("int8_weight_bytes"), 1, scale=1 / 1024),
    ]


def _with_own_recipe(c: Comparison, entry: Entry) -> Entry | None:
    return next((e for e in c.entries if e.method == entry.method + OWN_RECIPE), None)


def _with_our_recovery(c: Comparison, own: Entry) -> Entry | None:
    return next((e for e in c.entries if e.method + OWN_RECIPE == own.method), None)


def _difference_cells(c: Comparison, method: str) -> list[str]:
    found = c.differences.get(method)
    if found is None:
        return ["", ""]
    verdict = "above" if found.above else "below" if found.high < 0 else "not told apart"
    return [difference_text(found), verdict]


def difference_text(found: Difference | None) -> str:
    """Return a difference in points with its interval."""
    return "" if found is None else f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _whole_bytes(c: Comparison) -> float | None:
    """Return the bytes of the unpruned network's INT8 weights, by way of any slimmed one."""
    for entry in c.entries:
        left, share = entry.mean("int8_weight_bytes"), entry.mean("shares", "weight_bytes")
        if left and share:
            return left / share
    return None


def _top1(entry: Entry) -> str:
    return with_range(entry.values("test_top1"), 2, scale=100)


def title(target: Target) -> str:
    """Return a target in words."""
    costs = {"macs": "MACs", "weight_bytes": "weight bytes", "activation_bytes": "activations"}
    names = " and ".join(costs.get(name, name) for name in target.cost.split("+"))
    return f"{target.network}, {target.share * 100:g} % of the {names}, {target.epochs} epochs"


def ladders(comparisons: Sequence[Comparison]) -> dict[tuple[str, int, str], list[Comparison]]:
    """Group targets that differ in their share alone: network, epochs and cost are the key."""
    grouped: dict[tuple[str, int, str], list[Comparison]] = {}
    for c in comparisons:
        grouped.setdefault((c.target.network, c.target.epochs, c.target.cost), []).append(c)
    return grouped


def area_table(comparisons: Sequence[Comparison]) -> str:
    """Return the mean accuracy over the common range of INT8 bytes, per network and method."""
    rows = []
    for (network, epochs, _), ladder in ladders(comparisons).items():
        rows += [[f"{network}, {epochs} epochs", *cells] for cells in _areas(ladder)]
    if not rows:
        return ""
    header = ["network", "method", "range, KiB", "mean top-1 %", f"`{OURS}` minus it"]
    return table(header, rows, text_columns=2)


def _areas(ladder: Sequence[Comparison]) -> list[list[str]]:
    if len(ladder) < 2:
        return []
    found: dict[str, list[tuple[float, float]]] = {}
    for c in ladder:
        for entry in c.entries:
            left, top1 = entry.mean("int8_weight_bytes"), entry.mean("test_top1")
            if left and top1 is not None:
                found.setdefault(entry.method, []).append((math.log2(left), top1))
    # A method that stopped short of a target would narrow the range for all others.
    curves = {name: points for name, points in found.items() if len(points) == len(ladder)}
    for points in curves.values():
        points += _unpruned_point(ladder[0])
    start = max((min(points)[0] for points in curves.values()), default=0.0)
    stop = min((max(points)[0] for points in curves.values()), default=0.0)
    if start >= stop:
        return []
    areas = {name: area_under(points, start, stop) * 100 for name, points in curves.items()}
    ours = areas.get(OURS)
    kib = f"{2**start / 1024:.1f} to {2**stop / 1024:.1f}"
    return [
        [f"`{name}`", kib, f"{area:.2f}",
         "" if ours is None or name == OURS else f"{ours - area:+.2f}"]
        for name, area in sorted(areas.items(), key=lambda item: (item[0] != OURS, -item[1]))
    ]  # fmt: skip


def _unpruned_point(c: Comparison) -> list[tuple[float, float]]:
    """Return where every method's curve ends: the continued baseline, if it ran."""
    left, top1 = _whole_bytes(c), c.continued.mean("test_top1") if c.continued else None
    return [] if left is None or top1 is None else [(math.log2(left), top1)]


def time_table(comparisons: Sequence[Comparison]) -> str:
    """Return how long search and fine-tuning took, per target and method."""
    rows = []
    for c in comparisons:
        for entry in sorted(c.entries, key=lambda e: (e is not c.ours, e.is_peer)):
            search, fit = entry.mean("seconds", "choice"), entry.mean("seconds", "finetune")
            epochs = next(iter(entry.rows.values()))["search_epochs"]
            rows.append(
                [
                    title(c.target),
                    f"`{entry.method}`",
                    f"{epochs} + {c.target.epochs - epochs}",
                    number(search, 0),
                    number(fit, 0),
                    number(entry.mean("seconds"), 0),
                    number(entry.mean("cpu_seconds"), 0),
                ]
            )
    if not rows:
        return ""
    header = ["target", "method", "epochs", "search s", "fine-tuning s", "both s", "CPU s"]
    return table(header, rows, text_columns=2)


def environments(rows: Iterable[Row]) -> str:
    """Return in one sentence what rows were measured on."""
    found = [row["environment"] for row in rows]
    if not found:
        return ""
    machines = {f"{e['processor']} {e['device']}, {e['threads']} thread(s)" for e in found}
    dates = sorted({e["date"] for e in found})
    listed = [
        "; ".join(sorted(machines)),
        ", ".join(sorted({f"torch {e['torch']}" for e in found})),
        " to ".join(dict.fromkeys((dates[0], dates[-1]))),
        "commits " + ", ".join(sorted({e["commit"] for e in found})),
    ]
    return f"Measured on {', '.join(listed)}."

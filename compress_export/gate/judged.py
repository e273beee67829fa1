"""Budgets and regressions of a report: one case per board, file and budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress_export.gate.limits import MIB, Allowed
from compress_export.gate.reported import Place, Reported

if TYPE_CHECKING:
    from boards import Board
    from runtime_bench import Check, Measurement

_STATUS_ORDER = ("pass", "unverified", "fail")


@dataclass(frozen=True)
class Case:
    """One budget, or one limit to a regression.

    Attributes:
        board: id.
        check: what was decided.
        seconds: that measuring it took; 0 where it is read off the file.
    """

    board: str
    check: Check
    seconds: float = 0.0

    @property
    def headroom(self) -> float | None:
        """What is left up to the limit, in the check's unit; negative where it is exceeded."""
        return None if self.check.value is None else self.check.limit - self.check.value


def judge_report(
    report: Reported, board: Board | None, limits: Mapping[str, float]
) -> tuple[Case, ...]:
    """Hold the shipped files to budgets.

    Args:
        board: whose budgets count, on files in its formats; None for those that the report itself
            was judged by, targets of its search among them.
        limits: in place of the budgets of the same name.
    """
    budgets = dict(report.budgets) if board is None else _limits_of(board)
    budgets = _in_order(budgets | dict(limits))
    name = report.board if board is None else board.id
    own = [Case(name, check) for check in report.targets] if board is None else []
    return (*own, *_budget_cases(report, board, name, budgets))


def _in_order(budgets: Mapping[str, float]) -> dict[str, float]:
    from runtime_bench.manifest import BUDGETS

    return {name: budgets[name] for name in BUDGETS if name in budgets}


def _limits_of(board: Board) -> dict[str, float]:
    from exporters.bundle import limits_of

    return limits_of(board)


def _budget_cases(
    report: Reported, board: Board | None, name: str, budgets: Mapping[str, float]
) -> Iterator[Case]:
    files = [file for file in report.files if board is None or file.format in board.formats]
    if not files:
        runs = "" if board is None else f" in a format that {name} runs"
        note = f"the report has no shipped file{runs}"
        yield from (Case(name, check) for check in _no_files(budgets, note))
    for file in files:
        for budget, limit in budgets.items():
            check = _decided(report, board, name, file, {budget: limit})
            scored = budget == "accuracy_drop_points"
            yield Case(name, check, (file.eval_seconds or 0.0) if scored else 0.0)


def _no_files(budgets: Mapping[str, float], note: str) -> Iterator[Check]:
    from runtime_bench import Check
    from runtime_bench.verdict import UNITS

    for budget, limit in budgets.items():
        yield Check("", budget, None, limit, UNITS[budget], "unverified", note)


def _title(board: Board | None, name: str) -> str:
    return name if board is None else f"{name} ({' '.join((board.cpu.arch, *board.cpu.isa))})"


def _decided(
    report: Reported,
    board: Board | None,
    name: str,
    file: Measurement,
    budget: Mapping[str, float],
) -> Check:
    """Machine-bound budgets go by the worst of the devices, where there are any."""
    from runtime_bench import MACHINE_BOUND, judge

    def check(place: Place, item: Measurement) -> Check:
        seen = _as_seen_by(board, report, place, item)
        title, score = _title(board, name), report.baseline_score
        return judge(seen, budget, board=title, baseline_top1=score)[0]

    if not budget.keys() & set(MACHINE_BOUND):
        return check(report.place, file)
    found = [_with_place(check(place, item), place) for place, item in report.measured(file)]
    return max(found, key=_badness)


def _badness(check: Check) -> tuple[int, float]:
    value = float("inf") if check.value is None else check.value
    return _STATUS_ORDER.index(check.status), value


def _with_place(check: Check, place: Place) -> Check:
    if place.name == "host":
        return check
    note = f"measured on {place.name}" if check.status != "unverified" else check.note
    return dataclasses.replace(check, note=note)


def _as_seen_by(
    board: Board | None, report: Reported, place: Place, item: Measurement
) -> Measurement:
    """A measurement with what it says for another board: a device is its own board's alone, and
    what computes the file there need not be what computes it here."""
    if board is None:
        return item
    from exporters.profiles.select import profile_for
    from runtime_bench import BoardRef, HostFacts, host_matches

    target = profile_for(board, item.format)
    item = dataclasses.replace(item, benchable=target.benchable)
    if board.id == report.board:
        return item

    facts = place.facts
    isa = tuple(facts.get("isa", ()))
    host = HostFacts(facts.get("arch", ""), isa, frozenset(isa), 0, "", "", "")
    wanted = BoardRef(board.id, board.kind, board.cpu.arch, board.cpu.isa, board.cpu.cores)
    return dataclasses.replace(
        item,
        measured_on="host",
        host_matches_board=host_matches(host, wanted),
        profile=target.name,
    )


_FIGURES: Mapping[str, tuple[str, Callable[[Measurement], float | None]]] = {
    "size": ("MiB", lambda item: item.size_bytes / MIB),
    "weights": (
        "MiB",
        lambda item: sum(item.weight_bytes.values()) / MIB if item.weight_bytes else None,
    ),
    "activations": ("MiB", lambda item: _mib(item.activation_bytes)),
    "memory": ("MiB", lambda item: _mib(item.peak_rss_bytes)),
    "latency": ("ms", lambda item: item.latency_ms["p90"] if item.latency_ms else None),
    # Worse is more: what is lost, as for every other figure.
    "top1": ("points", lambda item: _lost_points(item)),
}
_MACHINE_BOUND_NAMES = ("memory", "latency")


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / MIB


def _lost_points(item: Measurement) -> float | None:
    score = item.top1 if item.score is None else item.score
    return None if score is None else (1 - score) * 100


def judge_regressions(
    report: Reported, old: Reported | None, allowed: Mapping[str, Allowed]
) -> tuple[Case, ...]:
    """Compare the shipped files with those of the same names in an old report.

    A file that only one of the two has is unverified: of a new one nothing is known, and one that
    disappeared must not go unseen.

    Args:
        old: None where the baseline has no report of the board: its files are unverified.
    """
    before = {} if old is None else {file.name: file for file in old.files}
    gone = before.keys() - {file.name for file in report.files}

    def check(file: Measurement, name: str, amount: Allowed) -> Check:
        if old is None:
            return _noted(file, name, amount, f"the baseline has no board {report.board}")
        if file.name not in before:
            return _noted(file, name, amount, "the old report has no such file")
        if file.name in gone:
            return _noted(file, name, amount, "this report has no such file")
        return _regression(report, old, file, before[file.name], name, amount)

    return tuple(
        Case(report.board, check(file, name, amount))
        for file in (*report.files, *(before[name] for name in before if name in gone))
        for name, amount in allowed.items()
    )


def unverified_board(old: Reported, allowed: Mapping[str, Allowed]) -> tuple[Case, ...]:
    """Return a case for each file of a board that only the baseline has: it must not go unseen."""
    note = f"only the baseline has a board {old.board}"
    return tuple(
        Case(old.board, _noted(file, name, amount, note))
        for file in old.files
        for name, amount in allowed.items()
    )


def _noted(
    file: Measurement,
    name: str,
    allowed: Allowed,
    note: str,
    value: float | None = None,
    status: str = "unverified",
) -> Check:
    from runtime_bench import Check

    budget = f"{name}_regression"
    return Check(file.name, budget, value, allowed.amount, allowed.unit, status, note)


def _regression(
    report: Reported,
    old: Reported,
    file: Measurement,
    before: Measurement,
    name: str,
    allowed: Allowed,
) -> Check:
    unit, figure = _FIGURES[name]
    pair = (file, before)
    if name in _MACHINE_BOUND_NAMES:
        found = _same_place(report, old, file, before)
        if isinstance(found, str):
            return _noted(file, name, allowed, found)
        pair = found
    new_value, old_value = (figure(item) for item in pair)
    if new_value is None or old_value is None:
        which = "this" if new_value is None else "the old"
        return _noted(file, name, allowed, f"{which} report has no such figure")
    worse = round(new_value - old_value, 9)
    if allowed.unit == "%":
        worse = 100 * worse / old_value if old_value else float(worse > 0) * 100
    note = f"{old_value:.4g} -> {new_value:.4g} {unit}"
    if name == "top1":
        note = f"{100 - old_value:.2f} -> {100 - new_value:.2f} %"
    # "not <=" rather than ">": a NaN must not pass.
    status = "pass" if worse <= allowed.amount else "fail"
    return _noted(file, name, allowed, note, worse, status)


def _same_place(
    report: Reported, old: Reported, file: Measurement, before: Measurement
) -> tuple[Measurement, Measurement] | str:
    """The two measurements of a machine that both reports know, or why there are none."""
    then = {place.machine: item for place, item in old.measured(before)}
    for place, item in report.measured(file):
        if place.machine not in then:
            continue
        earlier = then[place.machine]
        if earlier.threads != item.threads:
            return f"measured with {earlier.threads} thread(s) then, {item.threads} now"
        return item, earlier
    return "the two reports were measured on different machines"

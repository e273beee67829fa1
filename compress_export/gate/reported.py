"""What a report says of the files that go to the board, whichever of our tools wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.entries import score_of
from compress_export.errors import UsageError
from compress_export.outputs import FLEET_REPORT
from compress_export.shown import printable_tree
from compress_export.user_paths import expanded, refuse_unreachable
from runtime_bench.plain_json import read_json

if TYPE_CHECKING:
    from runtime_bench import Check, Measurement

Json = Mapping[str, Any]
_BUNDLE = "bundle/"
_STATUSES = ("pass", "fail", "unverified")
_FACTS: Mapping[str, Any] = {"arch": str, "model": str, "isa": list[str], "cores": int | None}


@dataclass(frozen=True)
class Place:
    """A machine that files were measured on.

    Attributes:
        name: "host", or a device as `deploy` names it (user@host:/path).
        facts: architecture, instruction sets, cores, model.
    """

    name: str
    facts: Json

    @property
    def machine(self) -> tuple[Any, ...]:
        """Equal for machines whose latencies compare."""
        return (self.name, *(self.facts.get(key) for key in ("arch", "model", "cores")))


@dataclass(frozen=True)
class Reported:
    """One report.

    Attributes:
        source: the file.
        board: its id; where the report names none, the name of the file.
        files: the shipped files as measured at `place`.
        place: where.
        devices: what devices measured, the latest of each.
        budgets: those that the report was judged by, by their names in the report.
        baseline_score: of the float baseline, a fraction.
        targets: outcomes of the search that concern the whole job.
        bundle: the folder with the files, where it is there.
        seconds: that making and measuring took; 0 where unknown.
    """

    source: Path
    board: str
    files: tuple[Measurement, ...]
    place: Place
    devices: tuple[tuple[Place, tuple[Measurement, ...]], ...] = ()
    budgets: Mapping[str, float] = field(default_factory=dict)
    baseline_score: float | None = None
    targets: tuple[Check, ...] = ()
    bundle: Path | None = None
    seconds: float = 0.0

    def measured(self, file: Measurement) -> Iterator[tuple[Place, Measurement]]:
        """Where a file's time and memory were measured: on devices, else on the host."""
        found = [
            (place, item)
            for place, items in self.devices
            for item in items
            if (item.name, item.sha256) == (file.name, file.sha256)
        ]
        yield from found or [(self.place, file)]


def read_reports(path: Path) -> tuple[Reported, ...]:
    """Read report.json or the folder with it, a fleet's folder, or a `runtime-bench --json` file.

    Returns:
        One for each board of a fleet, else a single one.

    Raises:
        UsageError: no such file, or something else in it.
    """
    source = _source(path)
    content = _json(source)
    try:
        if "fleet" in content:
            return tuple(_of_member(source, entry["folder"]) for entry in content["fleet"])
        if "measurements" in content:
            return (_of_bench(source, content),)
        if "artifacts" in content:
            return (_of_job(source, content),)
    except UsageError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OSError) as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UsageError(
            f"{source}: cannot be read as a report ({cause}); was it written by another version?"
        ) from None
    raise UsageError(
        f"{source}: neither report.json of a job nor a file of runtime-bench --json: it has no "
        "artifacts and no measurements"
    )


def _source(path: Path) -> Path:
    path = expanded(path)
    refuse_unreachable("report", path / "report.json")
    if not path.is_dir():
        return path
    for name in (FLEET_REPORT, "report.json"):
        if (path / name).is_file():
            return path / name
    raise UsageError(f"{path}: holds neither report.json nor {FLEET_REPORT}; is it a job's DIR?")


def _json(source: Path) -> Json:
    try:
        content = printable_tree(read_json(source))
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UsageError(f"{source}: not JSON ({error}); give report.json") from None
    if not isinstance(content, dict):
        raise UsageError(f"{source}: holds a {type(content).__name__}, not a report")
    return content


def _of_member(source: Path, name: str) -> Reported:
    """The report of a fleet's folder, which is no fleet itself."""
    from runtime_bench.manifest import inside

    path = source.parent / inside(name, str(source)) / "report.json"
    return _of_job(path, _json(path))


def _of_job(source: Path, report: Json) -> Reported:
    shipped = [
        {**entry, "path": entry["path"].removeprefix(_BUNDLE)}
        for entry in report["artifacts"]
        if entry["path"].startswith(_BUNDLE)
    ]
    checks = _checks(report["checks"])
    bundle = source.parent / "bundle"
    return Reported(
        source=source,
        board=_reader(str).validate_python(report["board"]),
        files=tuple(measurement_of(entry) for entry in shipped),
        place=place_of("host", report["environment"]["host"]),
        devices=tuple(_devices(report.get("device_measurements", ()))),
        budgets=_budgets(checks),
        baseline_score=score_of(report["stages"].get("baseline", {})),
        targets=tuple(check for check in checks if check.budget == "target"),
        bundle=bundle if bundle.is_dir() else None,
        seconds=sum(report.get("timings_seconds", {}).values()),
    )


def _of_bench(source: Path, content: Json) -> Reported:
    checks = _checks(content["checks"])
    judged = {check.file for check in checks}
    items = tuple(measurement_of(entry) for entry in content["measurements"])
    files = tuple(item for item in items if item.name in judged) if judged else items
    folders = {Path(item.folder) for item in files}
    bundle = folders.pop() if len(folders) == 1 else None
    return Reported(
        source=source,
        board=_reader(str).validate_python(content.get("board") or source.stem),
        files=files,
        place=place_of(content.get("device", "host"), content["host"]),
        budgets=_budgets(checks),
        baseline_score=_baseline_score(files, checks),
        bundle=bundle if bundle is not None and bundle.is_dir() else None,
    )


def _devices(entries: Sequence[Json]) -> Iterator[tuple[Place, tuple[Measurement, ...]]]:
    latest: dict[str, Json] = {}
    for entry in sorted(entries, key=lambda entry: str(entry["measured_at"])):
        latest[entry["device"]] = entry
    for device, entry in latest.items():
        items = tuple(measurement_of(item) for item in entry["measurements"])
        yield place_of(device, entry["host"]), items


def _checks(entries: Sequence[Json]) -> tuple[Check, ...]:
    from runtime_bench import Check

    checks = tuple(_reader(Check).validate_python(entry) for entry in entries)
    for check in checks:
        if check.status not in _STATUSES:
            raise ValueError(f"the status {check.status!r}")
    return checks


def measurement_of(entry: Json) -> Measurement:
    """Read one of a report's measurements; KeyError, TypeError or ValueError where it is none."""
    from runtime_bench import Measurement
    from runtime_bench.manifest import inside

    item: Measurement = _reader(Measurement).validate_python({"folder": "", **entry})
    inside(item.path, item.name)
    if (item.latency_ms is not None and "p90" not in item.latency_ms) or (
        item.arena is not None and not isinstance(item.arena.get("smallest_bytes"), int)
    ):
        raise ValueError(f"{item.name} has no p90, or an arena without its size")
    return item


def place_of(name: str, facts: Json) -> Place:
    """Read where something was measured; TypeError or ValueError where that isn't said."""
    known = {key: kind for key, kind in _FACTS.items() if key in facts}
    return Place(
        _reader(str).validate_python(name),
        {key: _reader(kind).validate_python(facts[key]) for key, kind in known.items()},
    )


@cache
def _reader(kind: Any) -> Any:
    """Checks the types of a value's fields; those that this version doesn't know are left out."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _budgets(checks: Sequence[Check]) -> dict[str, float]:
    return {check.budget: check.limit for check in checks if check.budget != "target"}


def _baseline_score(files: Sequence[Measurement], checks: Sequence[Check]) -> float | None:
    """What the bench compared with: it notes the drop and the score of the file."""
    for check in checks:
        for item in files:
            drop = check.value if check.budget == "accuracy_drop_points" else None
            if item.name == check.file and item.top1 is not None and drop is not None:
                return item.top1 + drop / 100
    return None

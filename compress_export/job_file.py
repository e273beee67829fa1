"""From the command line and `--config job.yaml` to JobOptions; every mistake in one line."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from boards.strict_yaml import read_yaml
from compress_export.errors import UsageError
from compress_export.options import JobOptions
from compress_export.user_paths import expanded

_LOC_PREFIX = "Value error, "


def resolve_options(given: Mapping[str, Any]) -> JobOptions:
    """Options from the command line over those of the file it names over the defaults.

    given: field names of JobOptions; None stands for "not given on the command line".
    Raises UsageError with all mistakes in one line.
    """
    said = {name: value for name, value in given.items() if value is not None}
    config = said.get("config")
    from_file = read_job_file(expanded(config)) if config is not None else {}
    merged = {**from_file, **said}
    if "board" not in merged:
        raise UsageError(_board_missing())
    try:
        return JobOptions(**merged)
    except ValidationError as error:
        origin = dict.fromkeys(from_file.keys() - said.keys(), f" (in {config})")
        raise UsageError(_one_line(error, origin)) from None


def resolve_jobs(given: Mapping[str, Any]) -> tuple[JobOptions, ...]:
    """One job for each board of the command line or of its fleet file; else the job file's one.

    given: as for `resolve_options`, with a list of boards and the path of a fleet file, `fleet`.
    Raises UsageError like `resolve_options`, for both of them given, and for a bad fleet file.
    """
    rest = {name: value for name, value in given.items() if name not in ("board", "fleet")}
    boards, fleet = list(given.get("board") or ()), given.get("fleet")
    if fleet is not None and boards:
        raise UsageError(
            f"--fleet {fleet} and --board {boards[0]} exclude each other: put the board in the file"
        )
    if fleet is not None:
        boards = read_fleet_file(expanded(fleet))
    if not boards:
        return (resolve_options(rest),)
    return tuple(resolve_options({**rest, "board": board}) for board in boards)


def read_fleet_file(path: Path) -> list[str]:
    """Boards of a file that holds `boards:` and a list of names or paths.

    Raises UsageError where it holds anything else.
    """
    content = read_mapping(path, "--fleet", "'boards:' and a list")
    known = {"boards"}
    problems = [unknown_key(str(key), known) for key in content if key not in known]
    boards = content.get("boards")
    if not problems and not (isinstance(boards, list) and boards):
        problems = ["boards: must be a list of names or paths, as in [jetson, boards/mine.yaml]"]
    elif not problems:
        wrong = [board for board in boards or () if not isinstance(board, str)]
        problems = [f"boards: {board!r} is neither a name nor a path" for board in wrong]
    if problems:
        raise UsageError(f"--fleet {path}: {'; '.join(problems)}")
    return list(boards or ())


def read_job_file(path: Path) -> dict[str, Any]:
    """Options of a job file by field name; dashes and underscores are the same, null is left out.

    Paths in the file are relative to the working directory, like those on the command line.
    Raises UsageError where the file cannot be read, is not a mapping or has unknown keys.
    """
    content = read_mapping(path, "--config", "options as 'name: value' lines")
    return known_options(content, f"--config {path}")


def read_mapping(path: Path, option: str, wanted: str) -> Mapping[object, Any]:
    """What a YAML file holds. Raises UsageError, beginning with `option`, unless it is `wanted`."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{option} {path}: cannot be read ({reason})") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{option} {path}: not valid YAML: {_flat(str(error))}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(
            f"{option} {path}: must hold {wanted}, but holds a {type(content).__name__}"
        )
    return content


def known_options(content: Mapping[object, Any], origin: str) -> dict[str, Any]:
    """Options of a mapping by field name. Raises UsageError that begins with `origin`."""
    allowed = JobOptions.model_fields.keys() - {"config"}
    found: dict[str, Any] = {}
    problems = []
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in allowed:
            problems.append(unknown_key(str(key), allowed))
        elif name in found:
            problems.append(f"{name!r} is there twice (dashes and underscores are the same)")
        elif value is not None:
            found[name] = value
    if problems:
        raise UsageError(f"{origin}: {'; '.join(problems)}")
    return found


def unknown_key(key: str, allowed: set[str]) -> str:
    """One line about an unknown name, with the nearest known one."""
    known = sorted(name.replace("_", "-") for name in allowed)
    close = difflib.get_close_matches(key.replace("_", "-"), known, n=1, cutoff=0.5)
    if close:
        return f"unknown option {key!r}, did you mean {close[0]!r}?"
    return f"unknown option {key!r}, known: {', '.join(known)}"


def _board_missing() -> str:
    from boards import shipped_boards

    return (
        "--board is missing: give a shipped board, a descriptor's file name or a path; "
        f"shipped: {', '.join(sorted(shipped_boards()))}"
    )


def _one_line(error: ValidationError, origin: Mapping[str, str]) -> str:
    """All mistakes as "--option value: what is allowed", joined by semicolons."""
    messages = []
    for mistake in error.errors():
        text = mistake["msg"].removeprefix(_LOC_PREFIX)
        if not mistake["loc"]:
            messages.append(text)
            continue
        field = str(mistake["loc"][0])
        text = text.replace("Input should be", "must be")
        value = _flat(str(mistake["input"]))
        messages.append(f"--{field.replace('_', '-')} {value}: {text}{origin.get(field, '')}")
    return _flat("; ".join(messages))


def _flat(text: str) -> str:
    return " ".join(text.split())

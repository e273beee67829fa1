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

_LOC_PREFIX = "Value error, "


def resolve_options(given: Mapping[str, Any]) -> JobOptions:
    """Options from the command line over those of the file it names over the defaults.

    given: field names of JobOptions; None stands for "not given on the command line".
    Raises UsageError with all mistakes in one line.
    """
    said = {name: value for name, value in given.items() if value is not None}
    config = said.get("config")
    from_file = read_job_file(Path(config).expanduser()) if config is not None else {}
    merged = {**from_file, **said}
    if "board" not in merged:
        raise UsageError(_board_missing())
    try:
        return JobOptions(**merged)
    except ValidationError as error:
        origin = dict.fromkeys(from_file.keys() - said.keys(), f" (in {config})")
        raise UsageError(_one_line(error, origin)) from None


def read_job_file(path: Path) -> dict[str, Any]:
    """Options of a job file by field name; dashes and underscores are the same, null is left out.

    Paths in the file are relative to the working directory, like those on the command line.
    Raises UsageError where the file cannot be read, is not a mapping or has unknown keys.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"--config {path}: cannot be read ({reason})") from None
    except yaml.YAMLError as error:
        raise UsageError(f"--config {path}: not valid YAML: {_flat(str(error))}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(
            f"--config {path}: must hold options as 'name: value' lines, "
            f"but holds a {type(content).__name__}"
        )
    return _known_keys(content, path)


def _known_keys(content: Mapping[object, Any], path: Path) -> dict[str, Any]:
    allowed = JobOptions.model_fields.keys() - {"config"}
    found: dict[str, Any] = {}
    problems = []
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in allowed:
            problems.append(_unknown_key(str(key), allowed))
        elif name in found:
            problems.append(f"{name!r} is there twice (dashes and underscores are the same)")
        elif value is not None:
            found[name] = value
    if problems:
        raise UsageError(f"--config {path}: {'; '.join(problems)}")
    return found


def _unknown_key(key: str, allowed: set[str]) -> str:
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

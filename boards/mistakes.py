"""Every mistake of a descriptor as one short clause each.

pydantic stops at the level where something is wrong; here the rest is checked as well, and each
finding is worded for the person who wrote the file: the key, the value, what is allowed.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from boards.parts import Contradictions
from boards.rules import contradictions
from boards.schema import Board
from boards.units import explain_number, key_with_allowed_unit, unit_hint

Location = tuple[str | int, ...]


class BoardError(ValueError):
    """A board that can't be found or a descriptor that can't be used; the message is one line."""


def find_mistakes(data: Mapping[str, Any]) -> list[str]:
    """All mistakes of a descriptor, keys first, then contradictions; empty if there are none."""
    details = _errors_of(Board, data)
    known = _without_unknown_keys(data, details)
    # A section with an unknown key was not checked for contradictions: once more without the key.
    details += [error for error in _errors_of(Board, known) if error["type"] == "value_error"]
    clauses = list(_clauses(details))
    clauses += contradictions(_valid_parts(known))
    return list(dict.fromkeys(clauses))


def _errors_of(model: type[Board], data: Mapping[str, Any]) -> list[ErrorDetails]:
    """pydantic's findings, without those of the board as a whole (the rules are run apart)."""
    try:
        model.model_validate(data)
    except ValidationError as error:
        return [found for found in error.errors(include_url=False) if found["loc"]]
    return []


def _without_unknown_keys(data: Mapping[str, Any], details: Sequence[ErrorDetails]) -> Any:
    """A copy of the data without the keys that the schema does not know."""
    known = copy.deepcopy(data)
    for error in details:
        if error["type"] == "extra_forbidden":
            section: Any = known
            for step in error["loc"][:-1]:
                section = section[step]
            del section[error["loc"][-1]]
    return known


def _valid_parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """The top-level values that are valid on their own, with defaults for those left out."""
    parts: dict[str, Any] = {}
    for key, field in Board.model_fields.items():
        if key not in data:
            if not field.is_required():
                parts[key] = field.get_default(call_default_factory=True)
            continue
        adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
        try:
            parts[key] = adapter.validate_python(data[key])
        except ValidationError:
            continue
    return parts


def _clauses(details: Sequence[ErrorDetails]) -> Iterator[str]:
    unknown = [error for error in details if error["type"] == "extra_forbidden"]
    meant = {
        (*error["loc"][:-1], twin)
        for error in unknown
        if (twin := key_with_allowed_unit(str(error["loc"][-1]), _keys_at(error["loc"][:-1])))
    }
    for error in details:
        place = path_text(error["loc"])
        if error["type"] == "missing" and error["loc"] in meant:
            continue  # the clause on the wrong unit already names this key
        if error["type"] == "too_short" and error["input"]:
            continue  # not empty as written: its items are wrong, and named by their own clauses
        if error["type"] == "value_error":
            cause = error.get("ctx", {}).get("error")
            texts = cause.clauses if isinstance(cause, Contradictions) else (str(cause),)
            yield from (f"{place}: {text}" for text in texts)
        else:
            yield f"{place}: {_explain(error)}"


def _explain(error: ErrorDetails) -> str:
    """One finding of pydantic in our words."""
    kind, loc, value = error["type"], error["loc"], error["input"]
    context = error.get("ctx", {})
    key = str(loc[-1])
    if kind == "extra_forbidden":
        return _explain_unknown(key, value, _keys_at(loc[:-1]))
    if kind == "missing":
        return f"missing{unit_hint(key)}"
    if kind == "literal_error":
        return f"{value!r} is not allowed; choose {context['expected']}"
    if kind == "float_type":
        return explain_number(key, value)
    if kind == "int_type":
        return f"{value!r} is not a whole number"
    if kind == "finite_number":
        return f"{value} is not a finite number"
    if kind == "bool_type":
        return f"{value!r} is not a flag; write true or false, without quotes"
    if kind == "string_type" and isinstance(value, int | float):
        return f'{value} is a number here; put it in quotes: "{value}"'
    if kind == "string_pattern_mismatch":
        return f"{value!r} does not have the form {context['pattern']}"
    if kind in ("model_type", "dict_type", "mapping_type"):
        return f"{_short(value)} is not a section with keys"
    if kind in ("tuple_type", "list_type"):
        return f"{_short(value)} is not a list; write [{_short(value)}]"
    if kind == "too_short":
        return "is empty; it needs at least one entry"
    message = error["msg"].removeprefix("Input should be ")
    return f"{_short(value)} is not allowed; it should be {message}"


def _explain_unknown(key: str, value: Any, allowed: Sequence[str]) -> str:
    twin = key_with_allowed_unit(key, allowed)
    if twin is not None:
        return f"unknown key; the unit is part of the name, {explain_number(twin, value, key)}"
    close = difflib.get_close_matches(key, allowed, n=1)
    if close:
        return f"unknown key; did you mean {close[0]}?"
    return f"unknown key; allowed: {', '.join(allowed)}"


def _keys_at(loc: Location) -> list[str]:
    """Keys that the schema allows in the section at this place."""
    model: type[BaseModel] = Board
    for step in loc:
        if isinstance(step, str):
            model = _model_in(model.model_fields[step].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The section inside ``Section``, ``Section | None`` or ``tuple[Section, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        arg for arg in get_args(annotation) if isinstance(arg, type) and issubclass(arg, BaseModel)
    )


def path_text(loc: Location) -> str:
    """``("runtimes", 0, "name")`` as ``runtimes[0].name``."""
    text = ""
    for step in loc:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step != "[key]":
            text += f".{step}" if text else step
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

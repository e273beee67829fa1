"""YAML from elsewhere: aliases that multiply, depth, numbers and tags end in one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from boards import BoardError, load_board
from boards.strict_yaml import MOST_BYTES, MOST_DEPTH, read_yaml


def doubling(levels: int, times: int) -> str:
    """Each level is a list of the one before: times ** levels entries when written out."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * times)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (doubling(9, 9), "with its aliases"),
        ("a: &a [*a]", "inside what it stands for"),
        ("a: &a {b: {c: *a}}", "inside what it stands for"),
        ("[" * 5000, "nested deeper"),
        ("- " * 5000, "nested deeper"),
        ("a: " + "x" * MOST_BYTES, "at most"),
        ("a: 0x" + "f" * 40, "64 bits"),
        ("a: " + "9" * 5000, "can't be read"),
        ("a: !!timestamp 2001-99-99", "can't be read"),
        ("a: !!int ''", "can't be read"),
        ('a: "\\ud800"', "can't be read"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
    ],
)
def test_a_document_made_to_harm_is_an_error_of_yaml(text: str, why: str) -> None:
    with pytest.raises(yaml.YAMLError, match=why):
        read_yaml(text)


def test_aliases_within_bounds_stay() -> None:
    assert read_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }
    deep: Any = read_yaml("[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1))
    assert deep == eval("[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.text("ab: -é\n'\"", max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("abc", max_size=3), below),
    max_leaves=8,
)


@settings(max_examples=100)
@given(plain)
def test_what_yaml_writes_comes_back(value: Any) -> None:
    assert read_yaml(yaml.safe_dump(value)) == value


@settings(max_examples=150)
@given(st.text("ab:-?[]{}&*!|>'\"%@\\ \n#,1.0x\x07é", max_size=60) | st.binary(max_size=40))
def test_any_text_is_a_value_or_a_board_error(tmp_path_factory: Any, content: str | bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(BoardError) as caught:
        load_board(path)
    assert "\n" not in str(caught.value)

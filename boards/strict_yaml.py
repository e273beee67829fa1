"""YAML as plain values, bounded: a file from elsewhere can't fill the memory or the stack.

A key that is written twice is refused instead of overwritten.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_BYTES = 2**15
"""Of a document as UTF-8, what its aliases stand for written out in full."""
MOST_DEPTH = 40
_MOST_INTEGER = 2**63 - 1


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, deep nesting and aliases that multiply."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # id of a finished node -> bytes, written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if is_alias and id(node) not in self._sizes:
            raise _refusal("an alias stands inside what it stands for", mark)
        if not is_alias:
            self._sizes[id(node)] = 1 + self._size_of_content(node)
        if self._sizes[id(node)] > MOST_BYTES:
            raise _refusal(f"more than {MOST_BYTES} bytes with its aliases", mark)
        return node

    def get_event(self) -> yaml.Event:
        if self._depth > MOST_DEPTH:
            raise _refusal(f"nested deeper than {MOST_DEPTH}", self.peek_event().start_mark)
        return super().get_event()

    def _size_of_content(self, node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return len(node.value.encode())  # refuses half a surrogate pair, which nothing can show
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        return sum(self._sizes[id(child)] for pair in pairs for child in pair)


def _refusal(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is written twice", key_node.start_mark
            )
        if key is not None:
            seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _integer(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    number = loader.construct_yaml_int(node)
    if abs(number) > _MOST_INTEGER:
        raise _refusal("a whole number of more than 64 bits", node.start_mark)
    return number


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(text: str) -> Any:
    """The value of one YAML document.

    Raises:
        yaml.YAMLError: broken YAML, a duplicate key, or more than the bounds of this module, with
            line and column where they are known.
    """
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"{len(text)} characters, at most {MOST_BYTES} bytes are read")
    try:
        loader = _StrictLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError:
        raise
    except Exception as error:  # what PyYAML lets through: of !!timestamp 2001-99-99, !!int ""
        raise yaml.YAMLError(f"a value can't be read ({type(error).__name__})") from None

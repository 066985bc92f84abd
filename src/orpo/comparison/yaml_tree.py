"""Nested YAML with lines: a file enters, nodes that know their place leave. The flat twin is training/config_file.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from orpo.errors import ConfigError
from orpo.training.config_file import SettingsLoader, parsed, yaml_errors

MOST_NODES = 10_000
"""Values in a file. A comparison has some hundred; an alias that stands for ten others, which each stand for ten, soon has more."""

DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place: a plain value, a list of nodes, or a section of named nodes."""

    where: str
    value: Any

    @property
    def is_section(self) -> bool:
        """True where names with values stand."""
        return isinstance(self.value, Mapping)

    @property
    def plain(self) -> Any:
        """The same without places: scalars, lists and dicts."""
        if isinstance(self.value, Mapping):
            return {name: node.plain for name, node in self.value.items()}
        return [node.plain for node in self.value] if isinstance(self.value, tuple) else self.value


def read_tree(file: str) -> Node:
    """The tree of a YAML file, dashes in names read as underscores, names without a value left out. Raises ConfigError with file:line."""
    loader, root = parsed(file)
    with yaml_errors(file):
        return Node(f"{file}:1", {}) if root is None else _Builder(loader, file).node(root, 1)


class _Builder:
    """Makes nodes, and counts them: shapes and sizes are seen before a value is built."""

    def __init__(self, loader: SettingsLoader, file: str) -> None:
        self.loader, self.file, self.num = loader, file, 0

    def node(self, node: yaml.Node, depth: int) -> Node:
        where = f"{self.file}:{node.start_mark.line + 1}"
        self.num += 1
        if depth > DEEPEST or self.num > MOST_NODES:
            problem = "values are nested too deeply" if depth > DEEPEST else f"more than {MOST_NODES:,} values, aliases written out"
            raise ConfigError(problem, where=where, expected="a comparison, as docs/comparisons.md shows one")
        if isinstance(node, yaml.MappingNode):
            return Node(where, dict(self._entries(node, depth)))
        if isinstance(node, yaml.SequenceNode):
            return Node(where, tuple(self.node(item, depth + 1) for item in node.value))
        return Node(where, self._scalar(node, where))

    def _entries(self, node: yaml.MappingNode, depth: int) -> Iterator[tuple[str, Node]]:
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                raise ConfigError("something else stands where a name belongs", where=f"{self.file}:{line}", expected="`name: value`")
            name = str(key.value).replace("-", "_")
            if name in seen:
                problem = f"{name} is given twice, here and at {self.file}:{seen[name]}"
                raise ConfigError(problem, where=f"{self.file}:{line}", fix="remove one of the two lines")
            seen[name] = line
            built = self.node(value, depth + 1)
            if built.value is not None:
                yield name, Node(f"{self.file}:{line}", built.value)

    def _scalar(self, node: yaml.Node, where: str) -> Any:
        try:
            return self.loader.construct_object(node)
        except (ValueError, OverflowError) as error:  # 2026-13-45, a number of 5000 digits
            problem = f"a value cannot be read: {str(error)[:80]}"
            raise ConfigError(problem, where=where, fix="if it is meant as text, put it in quotes") from error

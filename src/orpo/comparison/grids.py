"""What a stage is tuned over: the part of `tune` for one objective enters, the settings of each trial leave. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

from orpo.comparison.yaml_tree import Node
from orpo.errors import ConfigError
from orpo.training.config_file import Setting
from orpo.training.config_values import shown

Candidate = tuple[Setting, ...]
"""The settings of one trial of a stage beside those of every stage."""


def grid_of(objective: str, node: Node, *, refused: Iterable[str]) -> tuple[Candidate, ...]:
    """The candidates of a grid (every combination of its lists; a single value is a list of one) or of a list of settings, in order.

    Raises ConfigError for anything else, for names in `refused`, and for two candidates that are the same.
    """
    if node.is_section:
        candidates = _product(node.value, refused)
    elif isinstance(node.value, tuple) and all(item.is_section for item in node.value):
        candidates = tuple(candidate for item in node.value for candidate in _single(item.value, refused))
    else:
        expected = "a grid {learning_rate: [1e-4, 3e-4]}, or a list of settings [{learning_rate: 1e-4, beta: 0.1}, ...]"
        raise ConfigError(f"tune of {objective} is {shown(node.plain)}", where=node.where, expected=expected)
    seen = [[(setting.name, setting.value) for setting in candidate] for candidate in candidates]
    if not candidates or any(values in seen[:index] for index, values in enumerate(seen)):
        raise ConfigError(f"tune of {objective} has {'the same settings twice' if candidates else 'no settings'}", where=node.where)
    return candidates


def _product(entries: Mapping[str, Node], refused: Iterable[str]) -> tuple[Candidate, ...]:
    axes = []
    for name, node in entries.items():
        _require_tunable(name, node, refused)
        items = node.value if isinstance(node.value, tuple) else (node,)
        axes.append([Setting(name, item.plain, item.where) for item in items])
    return tuple(product(*axes))


def _single(entries: Mapping[str, Node], refused: Iterable[str]) -> tuple[Candidate, ...]:
    for name, node in entries.items():
        _require_tunable(name, node, refused)
    return (tuple(Setting(name, node.plain, node.where) for name, node in entries.items()),)


def _require_tunable(name: str, node: Node, refused: Iterable[str]) -> None:
    if name in refused:
        raise ConfigError(f"{name} is not tuned: a comparison sets it for every stage alike", where=node.where, fix="remove it")
    if node.is_section:
        raise ConfigError(f"{name} holds a section", where=node.where, expected="a value, or a list of values")

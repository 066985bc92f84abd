"""A configuration of another tool enters, YAML or JSON; its settings leave with their lines, nested as they stand there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from orpo.errors import ConfigError
from orpo.training.config_file import Setting, parsed, yaml_errors

MOST_NODES = 10_000
"""More values than any configuration has: a few anchors can stand for billions, and nothing is built of those."""


def read_foreign(file: str | Path) -> tuple[Setting, ...]:
    """The settings of a file in its order, values as they are nested there; those without a value are None.

    Raises ConfigError for a file that is no mapping of names to values, naming file and line.
    """
    path = Path(file)
    return _from_json(path) if path.suffix == ".json" else _from_yaml(path)


def _from_json(path: Path) -> tuple[Setting, ...]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration cannot be read: {error.strerror}", where=str(path), fix="name a YAML or JSON file") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid JSON: {error}", where=str(path), expected="one object of settings") from error
    if not isinstance(values, dict):
        raise _no_settings(str(path))
    return tuple(Setting(str(name), value, str(path)) for name, value in values.items())


def _from_yaml(path: Path) -> tuple[Setting, ...]:
    loader, root = parsed(path)
    if not isinstance(root, yaml.MappingNode):
        raise _no_settings(str(path))
    with yaml_errors(path):
        _require_bounded(root, str(path))
        loader.flatten_mapping(root)
        return tuple(Setting(_name(key, str(path)), _value(loader, value, str(path)), _place(key, path)) for key, value in root.value)


def _place(node: yaml.Node, path: Path) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _name(key: yaml.Node, file: str) -> str:
    if not isinstance(key, yaml.ScalarNode):
        raise ConfigError("a list or a section stands where a name belongs", where=f"{file}:{key.start_mark.line + 1}")
    return str(key.value)


def _value(loader: Any, node: yaml.Node, file: str) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, OverflowError, TypeError) as error:
        raise ConfigError(f"a value cannot be read: {str(error)[:80]}", where=f"{file}:{node.start_mark.line + 1}") from error


def _require_bounded(root: yaml.Node, file: str) -> None:
    """Nothing; raises ConfigError when anchors stand for more values than a configuration has. Sizes are counted once for each node."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 1
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] += sum(size(part) for part in parts) if isinstance(node, yaml.CollectionNode) else 0
        return sizes[id(node)]

    if size(root) > MOST_NODES:
        raise ConfigError("its anchors stand for too many values", where=file, expected="a configuration", fix="write the values out")


def _no_settings(file: str) -> ConfigError:
    return ConfigError("there are no settings in it", where=file, expected="names with values, as TRL, LLaMA-Factory or Axolotl read them")

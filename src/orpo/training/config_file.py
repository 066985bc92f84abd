"""A YAML file enters, its settings leave, each with file and line. The semantics are yaml.safe_load's, except that `1e-5` is a number."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orpo.errors import ConfigError

LARGEST_FILE = 256 * 1024
"""Bytes. A configuration has some 50 lines; what is larger is no configuration, and YAML is slow."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A name with a value and the place it was found: 'orpo.yaml:12', 'flag --beta', 'preset trl'. `written` is the name used there."""

    name: str
    value: Any
    place: str
    written: str = ""

    @property
    def origin(self) -> str:
        """The place, with the name used there where it was another."""
        return f"{self.place} (as {self.written})" if self.written not in ("", self.name) else self.place


class SettingsLoader(yaml.SafeLoader):
    """SafeLoader, and `1e-5` is a float: YAML 1.1 wants a dot and a sign there and would call it text."""


# A text that only a YAML 1.2 reader takes for a number; SafeLoader's own pattern is asked first.
EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+")
FLOAT_TAG = "tag:yaml.org,2002:float"
SettingsLoader.add_implicit_resolver(FLOAT_TAG, re.compile(f"^{EXPONENT.pattern}$"), list("-+.0123456789"))


def read_settings(file: str | Path) -> tuple[Setting, ...]:
    """The settings of a YAML file in its order; keys without a value are left out, dashes in keys become underscores.

    Raises ConfigError, with file:line where there is one, for everything that is no flat list of settings.
    """
    loader, root = parsed(file)
    with yaml_errors(file):
        return _settings(loader, root, str(file)) if root is not None else ()


def parsed(file: str | Path) -> tuple[SettingsLoader, yaml.Node | None]:
    """A YAML file as nodes, which know their lines, and what builds values of them; None for comments alone, or `---` alone.

    Nothing is built yet, so that the shape can be looked at first. Raises ConfigError for a file that is no YAML.
    """
    text = _text_of(Path(file))
    with yaml_errors(file, text):
        loader = SettingsLoader(text)
        root = loader.get_single_node()
    return loader, None if root is None or root.tag == "tag:yaml.org,2002:null" else root


@contextmanager
def yaml_errors(file: str | Path, text: str = "") -> Iterator[None]:
    """What the YAML reader raises inside becomes a ConfigError with place and remedy."""
    try:
        yield
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, str(file)) from error
    except RecursionError:
        raise ConfigError("values are nested too deeply", where=str(file), expected="one `name: value` per line", fix=_FLAT) from None


_FLAT = "settings are flat: write `lora_r: 16` at the top level, not `lora:` with `r: 16` below it"
_NESTED_FIXES = {
    "datasets": "list paths alone, `data: [a.jsonl, b.jsonl]`; columns, template and the split (org/name:split) are settled apart",
    "dataset": "list paths alone, `data: [a.jsonl, b.jsonl]`; columns, template and the split (org/name:split) are settled apart",
    "data": "list paths alone, `data: [a.jsonl, b.jsonl]`; columns, template and the split (org/name:split) are settled apart",
    "objective_options": "write its entries at the top level, such as `beta: 0.1`",
    "<<": "write the merged settings out",
}


def _settings(loader: SettingsLoader, root: yaml.Node, file: str) -> tuple[Setting, ...]:
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            f"this is {_what(root)}",
            where=f"{file}:{_line(root)}",
            expected="one `name: value` per line",
            fix="write for example `model: my-model`; `orpo init` writes a file to start from",
        )
    seen: dict[str, int] = {}
    found = []
    for key, value in root.value:
        name = _name(key, file)
        if name in seen:
            raise ConfigError(
                f"{name} is given twice, here and at {file}:{seen[name]}", where=f"{file}:{_line(key)}", fix="remove one of the two lines"
            )
        seen[name] = _line(key)
        built = _value(loader, name, value, file)
        if built is not None:
            found.append(Setting(name, built, f"{file}:{_line(key)}"))
    return tuple(found)


def _name(key: yaml.Node, file: str) -> str:
    """The key as it is written there: `on:` stays 'on'."""
    if not isinstance(key, yaml.ScalarNode):
        raise ConfigError(f"{_what(key)} stands where a name belongs", where=f"{file}:{_line(key)}", expected="one `name: value` per line")
    return str(key.value).replace("-", "_")


def _value(loader: SettingsLoader, name: str, node: yaml.Node, file: str) -> Any:
    """A scalar or a list of scalars, built. Nothing deeper is ever built, so an alias cannot multiply."""
    where = f"{file}:{_line(node)}"
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for item in items:
        if not isinstance(item, yaml.ScalarNode):
            raise ConfigError(
                f"{name} holds {_what(item)}", where=where, expected="a value, or a list of values", fix=_NESTED_FIXES.get(name, _FLAT)
            )
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, OverflowError) as error:  # 2026-13-45, a number of 5000 digits
        raise ConfigError(
            f"{name} cannot be read: {str(error)[:80]}", where=where, fix="if it is meant as text, put it in quotes"
        ) from error


def _what(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a section"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_error(error: yaml.YAMLError, text: str, file: str) -> ConfigError:
    """The error of the YAML reader as a place and a remedy."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return ConfigError("a control character stands here", where=f"{file}:{line}", expected="text", fix="delete the character")
    assert isinstance(error, yaml.MarkedYAMLError)
    mark = error.problem_mark or error.context_mark
    where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
    problem = error.problem or "this is no YAML"
    return ConfigError(f"not valid YAML: {problem}", where=where, expected="one `name: value` per line", fix=_syntax_fix(problem))


def _syntax_fix(problem: str) -> str:
    remedies = {
        r"'\t'": "YAML indents with spaces: replace the tab",
        "mapping values are not allowed": "a value that contains `: ` needs quotes; a name starts in the first column",
        "could not find expected ':'": "write `name: value`, with a space after the colon",
        "could not determine a constructor": "only plain values are read; remove the `!tag`",
        "but found another document": "remove the second `---`: one file is one run",
        "undefined alias": "a value that begins with `*` needs quotes",
        "cannot start any token": "put the value in quotes",
    }
    return next((fix for part, fix in remedies.items() if part in problem), "put values with : # [ ] { } & * ! | > % @ in quotes")


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise ConfigError(f"the configuration cannot be read: {error.strerror}", where=str(path), fix="name a YAML file") from error
    if len(data) > LARGEST_FILE:
        raise ConfigError(
            f"larger than {LARGEST_FILE // 1024} KiB", where=str(path), expected="a configuration", fix="is this a data file?"
        )
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data:
        raise ConfigError("looks like UTF-16", where=str(path), expected="UTF-8", fix="save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise ConfigError(problem, where=f"{path}:{line}", expected="UTF-8", fix="save it as UTF-8") from error


def _missing(path: Path) -> ConfigError:
    """Names the nearest files that are there."""
    folder = path.parent
    there = sorted(item.name for item in folder.iterdir() if item.suffix in (".yaml", ".yml")) if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=3, cutoff=0.5) or there[:3]
    fix = f"did you mean {' or '.join(str(folder / name) for name in near)}?" if near else "`orpo init` writes one to start from"
    return ConfigError("there is no such file", where=str(path), doing="reading the configuration", fix=fix)

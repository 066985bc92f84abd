"""One JSON object, strictly: bytes in, a dict or a `BadValue` that says what is wrong and at which line and column of those bytes."""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from math import isinf
from typing import Any

from orpo.core.records import Source
from orpo.data.row import Problem

MAX_DEPTH = 100
"""Deeper objects are refused: they would exhaust Python's stack later, in a template or a report."""

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMES = {list: "an array", str: "a string", bool: "a boolean", type(None): "null", int: "a number", float: "a number"}
_HINTS = {
    "Extra data": "something follows the value on its line; write one JSON object per line",
    "Expecting property name enclosed in double quotes": "keys stand in double quotes, no comma follows the last; use json.dumps",
    "Invalid control character at": "a line break or tab inside a string is written \\n or \\t; write rows with json.dumps",
    "Invalid \\escape": "a backslash inside a string is written \\\\; write rows with json.dumps",
}


class BadValue(ValueError):
    """What is wrong with a value. `line` counts from 0 and `column` from 1 within the bytes that were parsed."""

    def __init__(self, kind: str, message: str, *, fix: str = "", line: int = 0, column: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.fix, self.line, self.column = kind, message, fix, line, column

    def text(self, first_column: int = 0) -> str:
        """The message, with the column in the file; the parsed bytes begin after `first_column` others of their line."""
        if self.column is None:
            return self.message
        return f"column {self.column + (first_column if self.line == 0 else 0)}: {self.message}"

    def problem(self, file: str, first_line: int, first_column: int = 0) -> Problem:
        """The same as a problem of `file`, where the parsed bytes begin at that line and after so many others of it."""
        return Problem(self.kind, self.text(first_column), Source(file, first_line + self.line), fix=self.fix)


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises `BadValue` for anything else, for duplicate keys, NaN, lone surrogates and deep nesting."""
    text = utf8_text(data)
    try:
        value = _DECODER.decode(text)
    except JSONDecodeError as error:
        raise _malformed(error, text) from None
    except RecursionError:
        raise _too_deep() from None
    except BadValue:
        raise
    except ValueError as error:  # an integer of more than 4300 digits
        raise BadValue("malformed-json", f"not readable as JSON: {error}") from None
    if type(value) is not dict:
        raise BadValue("row-not-object", f"a row is {_NAMES[type(value)]}, expected an object with named columns", fix=_OBJECT_FIX)
    _check_nesting(value, data)
    if _SURROGATE_ESCAPE.search(data):
        _check_surrogates(value)
    return value


def utf8_text(data: bytes) -> str:
    """`data` as text. Raises `BadValue` naming the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, start = data.count(b"\n", 0, error.start), data.rfind(b"\n", 0, error.start) + 1
        column = len(data[start : error.start].decode("utf-8")) + 1
        raise BadValue(
            "not-utf-8",
            f"byte 0x{data[error.start]:02x} is not UTF-8 (byte {error.start - start + 1} of the text)",
            fix="save the file as UTF-8 (from Windows or Latin-1: iconv -f cp1252 -t utf-8 FILE > NEW)",
            line=line,
            column=column,
        ) from None


_OBJECT_FIX = 'write each row as an object, such as {"prompt": ..., "chosen": ..., "rejected": ...}'


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadValue("duplicate-key", f"the key {twice!a} stands twice in one object", fix="keep one of the two")
    return value


def _no_constant(name: str) -> Any:
    raise BadValue("not-finite-number", f"{name} is not JSON", fix="write null, or leave the key out")


def _finite(digits: str) -> float:
    value = float(digits)
    if isinf(value):
        raise BadValue("not-finite-number", f"the number {digits[:30]} is too large", fix="write a number below 1e308")
    return value


_DECODER = JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)


def _malformed(error: JSONDecodeError, text: str) -> BadValue:
    near = ascii(text[error.pos : error.pos + 20])[1:-1]
    found = f"near {near}" if near else "where the text ends"
    hint = next((hint for start, hint in _HINTS.items() if error.msg.startswith(start)), "write rows with json.dumps")
    return BadValue("malformed-json", f"not JSON: {error.msg}, {found}", fix=hint, line=error.lineno - 1, column=error.colno)


def _too_deep() -> BadValue:
    return BadValue("nested-too-deep", f"objects and arrays are nested more than {MAX_DEPTH} deep", fix="flatten the row")


def _check_nesting(value: dict[str, Any], data: bytes) -> None:
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:  # cannot be deeper than its brackets
        return
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child for parent in level for child in (parent.values() if type(parent) is dict else parent) if type(child) in (dict, list)
        ]
        if not level:
            return
    raise _too_deep()


def _check_surrogates(value: dict[str, Any]) -> None:
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        path, node = stack.pop()
        if type(node) is dict:
            for key, child in node.items():
                stack += [(f"{path}.{key}" if path else key, child), (f"{path}.{key}" if path else key, key)]
        elif type(node) is list:
            stack += [(f"{path}[{index}]", child) for index, child in enumerate(node)]
        elif type(node) is str and (half := _SURROGATE.search(node)):
            message = f"{path!a} holds {ascii(half.group())[1:-1]}, one half of a character written as two (a lone surrogate)"
            raise BadValue("lone-surrogate", message, fix="write the text again from its source: it was cut inside a character")

"""How a JSON file is laid out: an object per line, an array, or an object with the key "data". Decided from its first two lines."""

from __future__ import annotations

import re
from io import BufferedReader
from json import loads
from typing import Any, Literal

from orpo.data.byte_streams import DamagedStream, numbered_lines

Layout = Literal["lines", "array", "data"]
_HEAD = 2**16
_DATA_FIRST = re.compile(rb'\{\s*"data"\s*:\s*\[')
_DATA_LATER = re.compile(rb',\s*"data"\s*:\s*\[')


def json_layout(stream: BufferedReader, max_row_bytes: int) -> Layout:
    """The layout of the JSON text in `stream`; a malformed first line counts as one object per line, so that it is named alone."""
    lines = _first_lines(stream, max_row_bytes)
    first, second = (*lines, b"", b"")[:2]
    if first.startswith(b"["):
        return "lines" if second.startswith(b"[") and isinstance(_parsed(first), list) else "array"
    if not first.startswith(b"{"):
        return "lines"
    value = _parsed(first)
    if isinstance(value, dict):
        return "data" if not second and isinstance(value.get("data"), list) else "lines"
    # Not whole: the head of a document over several lines, or a broken row.
    opens = first.endswith((b"{", b",", b":")) and not second.startswith(b"{")
    if opens or first.endswith(b"[") or _DATA_FIRST.match(first) or _DATA_LATER.search(first[:_HEAD]):
        return "data"
    return "lines"


def _first_lines(stream: BufferedReader, limit: int) -> list[bytes]:
    """The first two lines that are not blank, stripped."""
    lines: list[bytes] = []
    try:
        for _, _, line in numbered_lines(stream, limit):
            if not line.isspace():
                lines.append(line.strip())
            if len(lines) == 2:
                break
    except DamagedStream:
        pass  # told by the reader, with the line
    return lines


def _parsed(line: bytes) -> Any:
    """The value of a line, None when it is not JSON by itself."""
    try:
        return loads(line)
    except (ValueError, RecursionError):
        return None

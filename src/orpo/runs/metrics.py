"""Logged rows: one JSON object per step and split enters, one line of metrics.jsonl (or samples.jsonl) leaves, and can be read back."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orpo.errors import StorageError
from orpo.runs.atomic import write_bytes_atomic
from orpo.runs.jsontext import plain, read_strictly, to_text
from orpo.runs.redact import redact
from orpo.runs.storage import storage_error, storage_errors

NON_FINITE = "non_finite"

Row = dict[str, Any]


class MetricsLog:
    """Appends rows to a file of JSON lines; each is whole in the file, or not there, when `append` returns or raises.

    Opening drops a last line that a killed process wrote in half. One writer: hold the RunLock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = self._open()

    def append(self, row: Mapping[str, Any]) -> None:
        """Nothing; `row` (with an int `step`) is one more line. NaN and infinities become null, their names go into `non_finite`."""
        assert isinstance(row.get("step"), int), f"a row needs an int `step`: {row!r}"
        line = to_text(redact(plain(finite_row(row)))).encode("ascii") + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            os.ftruncate(self._descriptor, size)  # a nearly full disk takes half a line
            raise storage_error(error, self.path, doing=f"logging step {row['step']}", need_bytes=len(line)) from error

    def sync(self) -> None:
        """Nothing; every row so far survives a power cut. Call it before a checkpoint is published, which relies on its rows."""
        with storage_errors(self.path, "syncing the log"):
            os.fsync(self._descriptor)

    def truncate_after(self, step: int) -> int:
        """How many rows of steps after `step` were removed, all at once: what a run logged after the checkpoint it resumes from."""
        rows = _lines(self.path)
        kept = [line for line, row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            write_bytes_atomic(self.path, b"".join(line + b"\n" for line in kept))
            self.close()  # the old file has lost its name
            self._descriptor = self._open()
        return len(rows) - len(kept)

    def close(self) -> None:
        """Nothing; the file is synced and closed."""
        with storage_errors(self.path, "closing the log"):
            try:
                os.fsync(self._descriptor)
            finally:
                os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> int:
        with storage_errors(self.path, "opening the log"):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if _row(content[whole:]) is not None:
                os.write(descriptor, b"\n")  # whole but for its end
            elif whole < len(content):
                os.ftruncate(descriptor, whole)
            return descriptor


def read_metrics(path: Path) -> list[Row]:
    """The rows of a file of JSON lines in their order. A last line without its end is left out when it is half.

    StorageError with file:line for any other line that is not an object with a `step`.
    """
    return [row for _, row in _lines(path)]


def finite_row(row: Mapping[str, Any]) -> Row:
    """`row` with None for each number that is NaN or infinite, and the names of those under `non_finite`."""
    lost = [name for name, value in row.items() if isinstance(value, Real) and not math.isfinite(value)]
    if not lost:
        return dict(row)
    return {**{name: None if name in lost else value for name, value in row.items()}, NON_FINITE: lost}


def _lines(path: Path) -> list[tuple[bytes, Row]]:
    with storage_errors(path, "reading the log"):
        *lines, rest = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is None:
            raise _damaged(path, number, line)
        found.append((line, row))
    last = _row(rest)
    return [*found, (rest, last)] if last is not None else found


def _row(line: bytes) -> Row | None:
    try:
        row = read_strictly(line.decode("utf-8"))
    except ValueError:
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("step"), int) and not isinstance(row.get("step"), bool)
    return row if is_row else None


def _damaged(path: Path, number: int, line: bytes) -> StorageError:
    return StorageError(
        f"this line is damaged: {line[:60].decode('utf-8', errors='replace')!a}",
        where=f"{path}:{number}",
        doing="reading the log",
        expected="a JSON object with an integer `step`",
        fix="delete this line; the other rows are whole",
    )

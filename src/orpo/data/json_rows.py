"""Rows of JSON files with one object per line. Every line stands alone, so a broken one is named and the next is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orpo.core.records import Source
from orpo.data.blank_lines import BlankLines
from orpo.data.byte_streams import ByteFile, DamagedStream, numbered_lines
from orpo.data.json_values import BadValue, json_object
from orpo.data.row import Problem, Row
from orpo.data.row_file import MAX_ROW_BYTES, FileDigest, mebibytes
from orpo.errors import DataError


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A file with one JSON object per line; a position is the byte offset of a line."""

    file: ByteFile
    max_row_bytes: int = MAX_ROW_BYTES

    @property
    def description(self) -> str:
        """The kind of file in words."""
        return ", ".join(filter(None, ("jsonl", self.file.compression)))

    def items(self) -> Iterator[tuple[int, Row | Problem]]:
        """(byte offset, row or problem), line by line."""
        name, blank = self.file.name, BlankLines(self.file.name)
        with self.file.open() as stream:
            try:
                for number, offset, line in numbered_lines(stream, self.max_row_bytes):
                    if line.isspace():
                        blank.add(number)
                        continue
                    blank.end()
                    yield offset, self._item(line, number)
            except DamagedStream as damage:
                yield 0, damaged_file(name, damage)
        yield from ((0, problem) for problem in blank.problems())

    def read(self, position: int, number: int) -> Row:
        """The row of the line at byte `position`."""
        with self.file.open(position) as stream:
            line = next(numbered_lines(stream, self.max_row_bytes, number=number), (number, 0, b""))[2]
            item = self._item(line, number)
        return row_or_raise(item, self.file.name)

    def digests(self) -> list[FileDigest]:
        """Hash and size of the file."""
        return [self.file.digest()]

    def _item(self, line: bytes, number: int) -> Row | Problem:
        source = Source(self.file.name, number)
        if len(line) > self.max_row_bytes:
            return giant(source, "a line", self.max_row_bytes)
        try:
            return Row(json_object(line.rstrip(b"\r\n")), source)
        except BadValue as bad:
            if bad.kind == "malformed-json" and _is_cut(line):
                return Problem("cut-row", f"the last line is cut: the file ends inside its object ({bad.text()})", source, fix=CUT_FIX)
            return bad.problem(self.file.name, number)


CUT_FIX = "write or download the file again, or delete the unfinished row"


def giant(source: Source, what: str, limit: int) -> Problem:
    """The problem of a row too long to be held in memory."""
    message = f"{what} longer than {mebibytes(limit)}, not read"
    return Problem("giant-line", message, source, severity="dropped", fix="shorten the row; check that line breaks were not lost")


def damaged_file(name: str, damage: DamagedStream) -> Problem:
    """The problem of a file whose bytes end in damage; rows after it are not known."""
    message = f"{damage}; rows were read up to here"
    return Problem("damaged-file", message, Source(name, damage.line), fix="copy or download the file again")


def row_or_raise(item: Row | Problem, name: str) -> Row:
    """The row. Raises `DataError` for a problem: a handle given out for a row no longer leads to one."""
    if isinstance(item, Problem):
        raise DataError(item.message, where=str(item.source or name), doing="reading a row again", fix=item.fix)
    return item


def _is_cut(line: bytes) -> bool:
    return not line.endswith(b"\n") and line.lstrip().startswith(b"{") and not line.rstrip().endswith(b"}")

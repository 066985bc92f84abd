"""Rows of csv and tsv files with a header. A row may span lines (a quoted line break); its line is the one where it starts."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader

from orpo.core.records import Source
from orpo.data.blank_lines import BlankLines
from orpo.data.byte_streams import ByteFile, DamagedStream, numbered_lines
from orpo.data.json_rows import damaged_file, giant, row_or_raise
from orpo.data.json_values import BadValue, utf8_text
from orpo.data.row import Problem, Row
from orpo.data.row_file import MAX_ROW_BYTES, FileDigest, mebibytes
from orpo.errors import DataError

LONGEST_COLUMN_NAME = 80
_HEADER_FIX = "name the columns in the first line, such as prompt,chosen,rejected"


@dataclass(frozen=True, slots=True)
class CsvRows:
    """A csv or tsv file; a position is the byte offset of a row. Every value is text."""

    file: ByteFile
    delimiter: str = ","
    max_row_bytes: int = MAX_ROW_BYTES

    @property
    def description(self) -> str:
        """The kind of file in words."""
        return ", ".join(filter(None, ({",": "csv", "\t": "tsv"}[self.delimiter], self.file.compression)))

    def items(self) -> Iterator[tuple[int, Row | Problem]]:
        """(byte offset, row or problem), row by row."""
        with self.file.open() as stream:
            records = _Records(self, stream)
            try:
                header = next(records, None)
                problem = header and self._header_problem(header)
                if header is None or problem:
                    yield from ((0, found) for found in ([problem] if problem else records.blank.problems()))
                    return
                yield from self._rows(records, header.cells)
            except DamagedStream as damage:
                yield 0, damaged_file(self.file.name, damage)
        yield from ((0, problem) for problem in records.blank.problems())

    def read(self, position: int, number: int) -> Row:
        """The row that begins at byte `position`; the header is read again."""
        with self.file.open() as stream:
            header = next(_Records(self, stream), None)
        with self.file.open(position) as stream:
            record = next(_Records(self, stream, number=number, offset=position), None)
        if header is None or record is None:
            raise DataError("the row is no longer there", where=f"{self.file.name}:{number}")
        return row_or_raise(self._item(record, header.cells), self.file.name)

    def digests(self) -> list[FileDigest]:
        """Hash and size of the file."""
        return [self.file.digest()]

    def _rows(self, records: _Records, header: list[str]) -> Iterator[tuple[int, Row | Problem]]:
        num_records = 0
        for record in records:
            num_records += 1
            yield record.offset, self._item(record, header)
        if not num_records:
            source = Source(self.file.name, 1)
            yield 0, Problem("empty-file", "the file holds a header and no rows", source, fix="check how the file was written")

    def _item(self, record: _Record, header: list[str]) -> Row | Problem:
        source = Source(self.file.name, record.number)
        if record.problem:
            return record.problem
        if len(record.cells) == len(header):
            return Row(dict(zip(header, record.cells, strict=True)), source)
        few = "too few" if len(record.cells) < len(header) else "too many"
        message = f"{few} cells: {len(record.cells)}, expected {len(header)} as in the header ({', '.join(map(ascii, header))})"
        return Problem(
            "csv-cells",
            message,
            source,
            fix='put cells that hold a delimiter, a quote or a line break into "quotes", with quotes inside doubled',
        )

    def _header_problem(self, header: _Record) -> Problem | None:
        """Why the first row cannot be the header, if it cannot."""
        if header.problem:
            return header.problem
        cells, source = header.cells, Source(self.file.name, header.number)
        if len(cells) == 1 and (other := next((mark for mark in ";\t|," if mark in cells[0]), None)):
            message = f"the header is one column that holds {other!a}; {self.description} separates columns with {self.delimiter!a}"
            return Problem(
                "csv-delimiter", message, source, fix="save the file with that separator" + (", or name it .tsv" if other == "\t" else "")
            )
        if any(not cell.strip() for cell in cells):
            return Problem(
                "csv-header", f"column {[not cell.strip() for cell in cells].index(True) + 1} has no name", source, fix=_HEADER_FIX
            )
        if len(set(cells)) < len(cells):
            twice = next(cell for cell in cells if cells.count(cell) > 1)
            return Problem("csv-header", f"two columns are named {twice!a}", source, fix="rename one of them")
        if text := next(
            (cell for cell in cells if len(cell) > LONGEST_COLUMN_NAME or "\n" in cell or cell.rstrip().endswith((".", "?", "!"))), None
        ):
            message = f"the first line looks like a row, not like column names: {text[:40]!a}"
            return Problem("csv-header", message, source, fix=_HEADER_FIX)
        return None


@dataclass(frozen=True, slots=True)
class _Record:
    """Cells with the line and byte offset where they start, or a problem in their place."""

    number: int
    offset: int
    cells: list[str]
    problem: Problem | None = None


class _Records:
    """An iterator over the records of a stream."""

    def __init__(self, rows: CsvRows, stream: BufferedReader, *, number: int = 1, offset: int = 0) -> None:
        # The limit belongs to the module csv, not to a reader; its default of 128 KiB is shorter than a long conversation.
        csv.field_size_limit(max(csv.field_size_limit(), rows.max_row_bytes))
        self._name, self._limit = rows.file.name, rows.max_row_bytes
        self._lines = numbered_lines(stream, rows.max_row_bytes, number=number, offset=offset)
        self._reader = csv.reader(self._texts(), delimiter=rows.delimiter, strict=True)
        self._starts: list[tuple[int, int]] = []
        self._problem: Problem | None = None
        self.blank = BlankLines(self._name)

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> _Record:
        while True:
            record = self._record()
            if record.cells or record.problem:
                self.blank.end()
                return record
            self.blank.add(record.number)

    def _record(self) -> _Record:
        self._starts, self._problem = [], None
        try:
            cells = next(self._reader)
        except csv.Error as error:
            number, offset = self._starts[0]
            return _Record(number, offset, [], self._problem or self._malformed(str(error), number))
        number, offset = self._starts[0]
        return _Record(number, offset, cells, self._problem)

    def _texts(self) -> Iterator[str]:
        for number, offset, line in self._lines:
            self._starts.append((number, offset))
            if len(line) > self._limit:
                self._problem = giant(Source(self._name, number), "a line", self._limit)
                yield "\n"
                continue
            try:
                yield utf8_text(line)
            except BadValue as bad:
                self._problem = bad.problem(self._name, number)
                yield line.decode("utf-8", "replace")  # to keep the quotes in step; the row is not handed out

    def _malformed(self, error: str, number: int) -> Problem:
        last = self._starts[-1][0]
        where = f" (read as far as line {last})" if last > number else ""
        if error == "unexpected end of data" or "field limit" in error:
            reached = "the end of the file" if "end" in error else mebibytes(self._limit)
            message = f"a quoted cell that begins in this row is not closed before {reached}"
        else:
            message = f"not csv: {error}{where}"
        return Problem("malformed-csv", message, Source(self._name, number), fix='double a quote inside a quoted cell ("")')

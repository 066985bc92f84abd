"""Rows of parquet, arrow and feather files, batch by batch. Such files have no lines, so a place is a row number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from orpo.core.records import Source
from orpo.data.byte_streams import ByteFile, no_room, temporary_folder
from orpo.data.row import Problem, Row
from orpo.data.row_file import FileDigest
from orpo.errors import DataError

BATCH_ROWS = 256


class TableRows:
    """A parquet, arrow or feather file; a position is the index of a row."""

    def __init__(self, file: ByteFile, kind: Literal["parquet", "arrow"]) -> None:
        self.file, self.description = file, kind
        self._copy: tuple[Any, list[int]] | None = None

    def items(self) -> Iterator[tuple[int, Row | Problem]]:
        """(row index, row or problem), in the order of the file."""
        import pyarrow

        index = 0
        try:
            for batch in self._batches():
                if index == 0 and (problem := column_problem(batch.schema.names, self.file.name)):
                    yield 0, problem
                    return
                yield from batch_items(batch, index, self.file.name)
                index += batch.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            message = f"the {self.description} data cannot be read here: {str(error).splitlines()[0]}"
            yield 0, Problem("damaged-file", message, self._source(index), fix="copy or download the file again")
            return
        if index == 0:
            yield 0, Problem("empty-file", "the file holds no rows", self._source(0), fix="check how the file was written")

    def read(self, position: int, number: int) -> Row:
        """The row at index `position`, from an uncompressed copy in the temporary folder that the first call makes."""
        if self._copy is None:
            self._copy = self._readable_copy()
        reader, starts = self._copy
        batch = bisect_right(starts, position) - 1
        item = next(batch_items(reader.get_batch(batch).slice(position - starts[batch], 1), number - 1, self.file.name))[1]
        if isinstance(item, Problem):
            raise DataError(item.message, where=str(item.source), doing="reading a row again", fix=item.fix)
        return item

    def digests(self) -> list[FileDigest]:
        """Hash and size of the file."""
        return [self.file.digest()]

    def _source(self, index: int) -> Source:
        return Source(self.file.name, index + 1, is_line=False)

    def _batches(self) -> Iterator[Any]:
        """Record batches of at most BATCH_ROWS rows."""
        with self.file.open():
            pass  # says plainly when the file changed or cannot be opened
        path = str(self.file.path)
        large = _parquet_batches(path) if self.description == "parquet" else _arrow_batches(path)
        for batch in large:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)

    def _readable_copy(self) -> tuple[Any, list[int]]:
        import pyarrow

        folder = temporary_folder(self)
        starts: list[int] = []
        try:
            _write_batches(folder / "rows.arrow", self._batches(), starts)
        except OSError as error:
            raise no_room(self.file.name, folder, error) from error
        return pyarrow.ipc.open_file(pyarrow.memory_map(str(folder / "rows.arrow"))), starts


def batch_items(batch: Any, index: int, name: str) -> Iterator[tuple[int, Row | Problem]]:
    """(row index, row or problem) for the rows of a record batch or table whose first row has `index`."""
    for offset, value in enumerate(_values(batch)):
        source = Source(name, index + offset + 1, is_line=False)
        if isinstance(value, Exception):
            message = f"a value cannot be read: {value}"
            kind = "not-utf-8" if isinstance(value, UnicodeDecodeError) else "unreadable-value"
            yield index + offset, Problem(kind, message, source, fix="write the file again with valid text")
        else:
            yield index + offset, Row(value, source)


def column_problem(names: list[str], name: str) -> Problem | None:
    """The problem of two columns with one name, if there is one: a row could hold only one of them."""
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is None:
        return None
    source = Source(name, 1, is_line=False)
    return Problem("duplicate-key", f"two columns are named {twice!a}", source, fix="rename or delete one of them")


def _values(batch: Any) -> list[Any]:
    """Each row as a dict, or the exception that reading it raised."""
    import pyarrow

    unreadable = (ValueError, OverflowError, pyarrow.ArrowException)
    try:
        return list(batch.to_pylist())
    except unreadable as error:
        if batch.num_rows == 1:
            return [error]
        return [value for index in range(batch.num_rows) for value in _values(batch.slice(index, 1))]


def _parquet_batches(path: str) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS)


def _arrow_batches(path: str) -> Iterator[Any]:
    import pyarrow

    with pyarrow.memory_map(path) as mapped:
        if mapped.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(mapped)
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            mapped.seek(0)
            yield from pyarrow.ipc.open_stream(mapped)


def _write_batches(path: Path, batches: Iterator[Any], starts: list[int]) -> None:
    """Writes batches to an arrow file and the index of each one's first row to `starts`, up to the first damage."""
    import pyarrow

    writer, index, schema = None, 0, None
    while (batch := _next_before_damage(batches)) is not None:
        if writer is None:
            schema = _without_dictionaries(batch.schema)
            writer = pyarrow.ipc.new_file(str(path), schema)
        writer.write_batch(batch if batch.schema.equals(schema) else batch.cast(schema))
        starts.append(index)
        index += batch.num_rows
    if writer is not None:
        writer.close()


def _next_before_damage(batches: Iterator[Any]) -> Any:
    # The rows before the damage were handed out, so they must stay readable.
    import pyarrow

    try:
        return next(batches, None)
    except (pyarrow.ArrowException, OSError):
        return None


def _without_dictionaries(schema: Any) -> Any:
    """`schema` with plain values for categories: an arrow file holds one dictionary per column, batches may bring several."""
    import pyarrow

    fields = [field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field for field in schema]
    return pyarrow.schema(fields, metadata=schema.metadata)

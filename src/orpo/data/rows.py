"""Any data source as one stream of rows and problems: a path or a Hub id enters, a `RowReader` leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orpo.data.byte_streams import ByteFile
from orpo.data.csv_rows import CsvRows
from orpo.data.file_types import FileType, content_problem, named_type
from orpo.data.found_files import files_in, missing, unknown_type
from orpo.data.hub import hub_id, open_hub, open_saved
from orpo.data.json_arrays import JsonArray
from orpo.data.json_layout import json_layout
from orpo.data.json_rows import JsonLines
from orpo.data.memory_rows import MemoryRows
from orpo.data.row import Problem, Row
from orpo.data.row_file import MAX_ROW_BYTES, FileDigest, Handle, RowFile
from orpo.data.table_rows import TableRows
from orpo.errors import DataError


class RowReader:
    """Rows of one data source, which may be several files, in file order. Every pass and every `read` goes back to the disk."""

    def __init__(self, parts: Sequence[RowFile], *, told: Sequence[Problem] = ()) -> None:
        self._parts, self._told = list(parts), list(told)
        self._digests: list[FileDigest] | None = None

    def __iter__(self) -> Iterator[Row | Problem]:
        """Rows, with problems where they occur; what concerns the whole source comes first."""
        return (item for _, item in self.iter_with_handles())

    def iter_with_handles(self) -> Iterator[tuple[Handle | None, Row | Problem]]:
        """The same, each row with the handle that `read` takes; a problem has None."""
        yield from ((None, problem) for problem in self._told)
        for index, part in enumerate(self._parts):
            for position, item in part.items():
                yield (Handle(index, position, item.source.number) if isinstance(item, Row) else None), item

    def read(self, handle: Handle) -> Row:
        """The row that iteration gave with `handle`. Raises `DataError` if the file changed since."""
        return self._parts[handle.file].read(handle.position, handle.number)

    @property
    def files(self) -> list[FileDigest]:
        """Path, sha256 and size of each file on disk, in order; hashed in one streaming pass at the first call."""
        if self._digests is None:
            self._digests = [digest for part in self._parts for digest in part.digests()]
        return self._digests

    @property
    def description(self) -> str:
        """What kind of files these are, such as 'jsonl, gzip' or '3 files: parquet'."""
        kinds = " and ".join(dict.fromkeys(part.description for part in self._parts))
        return kinds if len(self._parts) == 1 else f"{len(self._parts)} files: {kinds}"


class BrokenFile:
    """A file whose first bytes show that it cannot be read as what it claims to be: one problem, no rows."""

    def __init__(self, file: ByteFile, problem: Problem) -> None:
        self._file, self._problem, self.description = file, problem, "not readable"

    def items(self) -> Iterator[tuple[int, Row | Problem]]:
        """The problem."""
        yield 0, self._problem

    def read(self, position: int, number: int) -> Row:  # noqa: ARG002 (the protocol's signature)
        """Raises `DataError`: there are no rows."""
        raise DataError(self._problem.message, where=str(self._problem.source), fix=self._problem.fix)

    def digests(self) -> list[FileDigest]:
        """Hash and size of the file."""
        return [self._file.digest()]


def open_data(path_or_id: str, *, split: str | None = None, max_row_bytes: int = MAX_ROW_BYTES) -> RowReader:
    """The rows of a file, a folder (`folder:split` too) or a Hub id. Raises `DataError` only if nothing can be opened at all.

    What is wrong inside the files comes as problems when the reader is iterated. A longer row than `max_row_bytes`
    is dropped and counted.
    """
    path = Path(path_or_id).expanduser()
    if not path.exists():
        folder, _, tail = path_or_id.rpartition(":")
        if folder and Path(folder).expanduser().is_dir():
            return _open_folder(Path(folder).expanduser(), _one_split(split, tail, path_or_id), max_row_bytes)
        return _open_hub_id(path_or_id, path, split)
    if path.is_dir():
        return _open_folder(path, split, max_row_bytes)
    if split is not None:
        raise DataError(f"a single file has no split {split!r}", where=path_or_id, fix="leave the split out, or name a folder")
    return RowReader([_open_file(path, max_row_bytes)])


def open_dataset(dataset: Any, name: str) -> RowReader:
    """The rows of a `datasets.Dataset` in memory; places in messages read `name:row 7`."""
    return RowReader([MemoryRows(dataset, name)])


def _open_hub_id(text: str, path: Path, split: str | None) -> RowReader:
    wanted = hub_id(text)
    # `data/trian.jsonl` and `data/trian` beside an existing `data` are mistyped paths, not datasets of somebody called data.
    if wanted is None or named_type(path) or (len(path.parts) > 1 and Path(path.parts[0]).is_dir()):
        raise missing(path)
    rows, told = open_hub(wanted._replace(split=_one_split(split, wanted.split, text)))
    return RowReader([rows], told=told)


def _one_split(asked: str | None, named: str | None, where: str) -> str | None:
    if asked and named and asked != named:
        raise DataError(f"two splits are named: {named!r} after the colon and {asked!r}", where=where, fix="name one")
    return asked or named


def _open_folder(folder: Path, split: str | None, max_row_bytes: int) -> RowReader:
    if (folder / "dataset_dict.json").is_file() or ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()):
        rows, told = open_saved(folder, str(folder), split=split)
        return RowReader([rows], told=told)
    paths, told = files_in(folder, split=split)
    return RowReader([_open_file(path, max_row_bytes) for path in paths], told=told)


def _open_file(path: Path, max_row_bytes: int) -> RowFile:
    kind = named_type(path)
    if kind is None:
        raise unknown_type(path)
    if not path.is_file():
        raise DataError("not a regular file (a pipe or device cannot be read twice)", where=str(path), fix="write the rows to a file")
    file = ByteFile(path, str(path), kind.compression)
    file.open().close()  # no permission shows here
    problem = content_problem(file, kind.kind)
    return BrokenFile(file, problem) if problem else _reader(file, kind, max_row_bytes)


def _reader(file: ByteFile, kind: FileType, max_row_bytes: int) -> RowFile:
    if kind.kind in ("parquet", "arrow"):
        return TableRows(file, "parquet" if kind.kind == "parquet" else "arrow")
    if kind.kind in ("csv", "tsv"):
        return CsvRows(file, "," if kind.kind == "csv" else "\t", max_row_bytes)
    with file.open() as stream:
        layout = json_layout(stream, max_row_bytes)
    return JsonLines(file, max_row_bytes) if layout == "lines" else JsonArray(file, layout, max_row_bytes)

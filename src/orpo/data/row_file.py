"""What every kind of data file offers, so that a reader treats jsonl, csv, parquet and Hub data alike. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from orpo.data.row import Problem, Row

MAX_ROW_BYTES = 16 * 2**20
"""A longer line or array element is dropped and counted instead of held in memory: no model reads 16 MiB of text as one answer."""


class Handle(NamedTuple):
    """Where a row is found again: the file's index in the reader, a byte offset (or row index), and the line (or row) number to name."""

    file: int
    position: int
    number: int


class FileDigest(NamedTuple):
    """One file of a data source, for the fingerprint of a run."""

    path: str
    sha256: str
    size: int


class RowFile(Protocol):
    """One file (or saved dataset) of a data source. `items` and `read` may be called in any order and interleaved."""

    @property
    def description(self) -> str:
        """The kind of file in words, such as 'jsonl, gzip'."""

    def items(self) -> Iterator[tuple[int, Row | Problem]]:
        """(position, row or problem) in file order, in one streaming pass; the position of a problem means nothing."""

    def read(self, position: int, number: int) -> Row:
        """The row that `items` gave at `position`."""

    def digests(self) -> list[FileDigest]:
        """Path, hash and size of what lies on disk, from a streaming pass over the bytes."""


def mebibytes(num_bytes: int) -> str:
    """A size limit in words."""
    return f"{num_bytes / 2**20:g} MiB"

"""Rows of a `datasets.Dataset` that a program holds: the same as of a dataset on disk, but known by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from orpo.data.hub import DatasetRows
from orpo.data.row import Problem, Row
from orpo.data.row_file import FileDigest
from orpo.data.table_rows import BATCH_ROWS


class MemoryRows:
    """A dataset in memory, whole, filtered or shuffled; a position is the index of a row."""

    description = "rows in memory"

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset.with_format("arrow"), name
        self._rows = DatasetRows(dataset, name, description=self.description)

    def items(self) -> Iterator[tuple[int, Row | Problem]]:
        """(row index, row or problem), in order."""
        return self._rows.items()

    def read(self, position: int, number: int) -> Row:
        """The row at index `position`."""
        return self._rows.read(position, number)

    def digests(self) -> list[FileDigest]:
        """One hash of what the rows hold, in their order: a selection of rows shares its files with rows that were left out."""
        digest, size = hashlib.sha256(), 0
        for table in self._dataset.iter(batch_size=BATCH_ROWS):
            # Of the values, not of Arrow's buffers: the same rows lie in memory in more than one way.
            for row in table.to_pylist():
                written = json.dumps(row, sort_keys=True, default=str).encode()
                digest.update(written)
                size += len(written)
        return [FileDigest(self._name, digest.hexdigest(), size)]

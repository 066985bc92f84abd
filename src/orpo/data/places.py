"""Where each of many examples came from, in 12 bytes a row: sources enter, and leave by their number."""

from __future__ import annotations

from array import array

from orpo.core.records import Source


class Places:
    """The places of examples, in order."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, bool], int] = {}
        self._file_numbers = array("i")
        self._row_numbers = array("q")

    def append(self, source: Source) -> None:
        """Adds the place of an example at the end."""
        self._file_numbers.append(self._files.setdefault((source.file, source.is_line), len(self._files)))
        self._row_numbers.append(source.number)

    def __len__(self) -> int:
        return len(self._row_numbers)

    def __getitem__(self, index: int) -> Source:
        file, is_line = list(self._files)[self._file_numbers[index]]
        return Source(file, self._row_numbers[index], is_line)

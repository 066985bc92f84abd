"""Tokenized examples of a whole data set in bounded memory: token ids lie in an unlinked temporary file, their index in arrays."""

from __future__ import annotations

import errno
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from orpo.core.records import Source
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.errors import StorageError

_BUFFER_BYTES = 1 << 20
_NUM_BYTES = np.dtype(np.int32).itemsize


@dataclass(frozen=True, slots=True)
class Lengths:
    """Numbers of tokens, one entry per example; `rejected` is 0 where an example has a single completion."""

    prompt: NDArray[np.int64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]


class TokenStore(Sequence[TokenizedExample]):
    """Examples that are appended first and read afterwards; about 40 bytes of memory per pair.

    The first read ends the writing. From then on the ids are a read-only memory map, shared by threads and by forked processes.
    The file has no name, so nothing is left behind when the process ends, however it ends.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        try:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - open as long as the store lives
                dir=self._folder, prefix="orpo-", buffering=_BUFFER_BYTES
            )
        except OSError as error:
            raise self._storage_error(error) from error
        weakref.finalize(self, _close, self._file)
        self._ends = array("q", [0])  # where each run of ids ends: a prompt, or one completion
        self._first = array("q", [0])  # number of the run an example begins with; one more entry than examples
        self._files: dict[tuple[str, bool], int] = {}
        self._file_numbers = array("i")
        self._row_numbers = array("q")
        self._ids: TokenIds | None = None
        self._freezing = threading.Lock()

    def append(self, example: TokenizedExample) -> None:
        """Adds an example at the end. Raises StorageError when the disk is full."""
        assert self._ids is None, "a store that was read takes no more examples"
        parts = (example.prompt_ids, *example.completions)
        try:
            self._file.write(np.concatenate(parts).astype(np.int32, copy=False).tobytes())
        except OSError as error:
            raise self._storage_error(error) from error
        for ids in parts:
            self._ends.append(self._ends[-1] + len(ids))
        self._first.append(len(self._ends) - 1)
        place = (example.source.file, example.source.is_line)
        self._file_numbers.append(self._files.setdefault(place, len(self._files)))
        self._row_numbers.append(example.source.number)

    def __len__(self) -> int:
        return len(self._row_numbers)

    @overload
    def __getitem__(self, index: int) -> TokenizedExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenizedExample]: ...
    def __getitem__(self, index: int | slice) -> TokenizedExample | list[TokenizedExample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        ids = self._frozen()
        runs = range(self._first[number], self._first[number + 1])
        # Copies: torch refuses to look at read-only memory without a warning.
        prompt, *completions = (ids[self._ends[run] : self._ends[run + 1]].copy() for run in runs)
        return TokenizedExample(prompt, tuple(completions), self.source(number))

    def __iter__(self) -> Iterator[TokenizedExample]:
        return (self[number] for number in range(len(self)))

    def source(self, index: int) -> Source:
        """The place an example came from."""
        file, is_line = list(self._files)[self._file_numbers[index]]
        return Source(file, self._row_numbers[index], is_line)

    @property
    def lengths(self) -> Lengths:
        """Token counts of all examples."""
        ends = np.frombuffer(self._ends, dtype=np.int64)
        runs: NDArray[np.int64] = ends[1:] - ends[:-1]
        first = np.frombuffer(self._first, dtype=np.int64)
        starts, has_two = first[:-1], np.diff(first) > 2
        rejected = np.where(has_two, runs[np.minimum(starts + 2, max(len(runs) - 1, 0))], 0) if len(starts) else np.zeros(0, np.int64)
        return Lengths(runs[starts], runs[starts + 1], rejected)

    def _frozen(self) -> TokenIds:
        with self._freezing:
            if self._ids is None:
                self._ids = self._mapped()
        return self._ids

    def _mapped(self) -> TokenIds:
        if self._ends[-1] == 0:  # an empty file cannot be mapped
            return np.zeros(0, dtype=np.int32)
        try:
            self._file.flush()
            # A plain view of the map: np.memmap costs ten times as much per slice.
            return np.asarray(np.memmap(self._file, dtype=np.int32, mode="r", shape=(self._ends[-1],))).view(np.ndarray)
        except OSError as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: OSError) -> StorageError:
        need = self._ends[-1] * _NUM_BYTES if hasattr(self, "_ends") else 0
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return StorageError(
            "the disk is full" if is_full else f"a temporary file cannot be written: {error.strerror or error}",
            where=str(self._folder),
            doing=f"keeping tokenized pairs ({need:,} bytes so far)",
            fix="free space there, or set TMPDIR to a folder with more",
        )


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # a full disk was told when it happened; what is still buffered is of no use
        file.close()

"""Numbers that do not stay in memory: bytes are appended to an unlinked temporary file, and read from it afterwards."""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from orpo.errors import StorageError

_BUFFER_BYTES = 1 << 20


class SpillFile:
    """A file without a name: nothing is left behind when the process ends, however it ends.

    `doing` says in an error what was being written. Raises StorageError when the disk is full.
    """

    def __init__(self, doing: str, folder: Path | None = None) -> None:
        self._doing, self._folder = doing, folder or Path(tempfile.gettempdir())
        self.num_bytes = 0
        try:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - open as long as the object lives
                dir=self._folder, prefix="orpo-", buffering=_BUFFER_BYTES
            )
        except OSError as error:
            raise self._error(error) from error
        weakref.finalize(self, _close, self._file)

    def write(self, data: bytes) -> None:
        """Appends `data`."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._error(error) from error
        self.num_bytes += len(data)

    def chunks(self, num_bytes: int) -> Iterator[bytes]:
        """All that was written, from the beginning, `num_bytes` at a time: for what is read in passes and never has to be in memory."""
        try:
            self._file.flush()
            for start in range(0, self.num_bytes, num_bytes):
                self._file.seek(start)
                yield self._file.read(min(num_bytes, self.num_bytes - start))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._error(error) from error

    def array(self, dtype: DTypeLike) -> NDArray[Any]:
        """All that was written, read-only, as a memory map: shared by threads and by forked processes."""
        if self.num_bytes == 0:  # an empty file cannot be mapped
            return np.zeros(0, dtype=dtype)
        try:
            self._file.flush()
            # A plain view of the map: np.memmap costs ten times as much per slice.
            return np.asarray(np.memmap(self._file, dtype=dtype, mode="r", shape=(self.num_bytes // np.dtype(dtype).itemsize,))).view(
                np.ndarray
            )
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> StorageError:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return StorageError(
            "the disk is full" if is_full else f"a temporary file cannot be written: {error.strerror or error}",
            where=str(self._folder),
            doing=f"{self._doing} ({self.num_bytes:,} bytes so far)",
            fix="free space there, or set TMPDIR to a folder with more",
        )


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # a full disk was told when it happened; what is still buffered is of no use
        file.close()

"""Bytes of local files: plain, gzip or zstd; sequential, line by line with byte offsets, or at random. Damage becomes `DamagedStream`."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from orpo.data.row_file import FileDigest
from orpo.errors import DataError, StorageError

Compression = Literal["", "gzip", "zstd"]
CHUNK = 2**16
BOM = b"\xef\xbb\xbf"


class DamagedStream(Exception):
    """Bytes could not be read to the end: truncated or corrupt compression, or a failing disk. `line` is the line that was reached."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.line = 0


@dataclass(slots=True, weakref_slot=True)
class ByteFile:
    """A local file that can be read through from any byte of its decompressed content."""

    path: Path
    name: str
    compression: Compression = ""
    _plain_copy: Path | None = None
    _stamp: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._stamp = self._stamp_now()

    def open(self, offset: int = 0) -> io.BufferedReader:
        """A reader of the decompressed bytes from `offset` on; each call is independent, so forked workers cannot disturb each other."""
        self._check_unchanged()
        if offset and self.compression:
            return _opened_at(self._copy(), offset)
        return _opened_at(self.path, offset, self.compression)

    def digest(self) -> FileDigest:
        """Hash and size of the file as it lies on disk (compressed, if it is)."""
        self._check_unchanged()
        return digest_of(self.path, self.name)

    def _stamp_now(self) -> tuple[int, int]:
        try:
            status = self.path.stat()
        except OSError as error:
            raise unreadable(self.name, error) from error
        return status.st_size, status.st_mtime_ns

    def _check_unchanged(self) -> None:
        # Offsets taken in the first pass would point into other rows.
        if self._stamp_now() != self._stamp:
            raise DataError("the file changed while it was in use", where=self.name, fix="start again; write to another file meanwhile")

    def _copy(self) -> Path:
        """A decompressed copy in the temporary folder, made once: compressed files cannot be entered in the middle."""
        if self._plain_copy is None:
            folder = temporary_folder(self)
            copy = folder / "rows"
            try:
                with _opened_at(self.path, 0, self.compression) as packed, copy.open("wb") as plain:
                    for chunk in _chunks_until_damage(packed):
                        plain.write(chunk)
            except OSError as error:
                raise no_room(self.name, folder, error) from error
            self._plain_copy = copy
        return self._plain_copy


def numbered_lines(stream: io.BufferedReader, limit: int, *, number: int = 1, offset: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """(line number, byte offset, line with its end) of `stream`, whose first byte is at `offset` on line `number`.

    A byte order mark before line 1 is left out. A line longer than `limit` comes cut to limit + 1 bytes, without a line
    end; the rest of it is skipped unseen.
    """
    try:
        while line := stream.readline(limit + 1):
            yield number, offset, line.removeprefix(BOM) if number == 1 else line
            offset += len(line)
            if len(line) > limit:
                while not line.endswith(b"\n") and (line := stream.readline(CHUNK)):
                    offset += len(line)
            number += 1
    except DamagedStream as damage:
        damage.line = number
        raise


def temporary_folder(owner: object) -> Path:
    """A new folder that is deleted with `owner`, or when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="orpo-rows-"))
    weakref.finalize(owner, _remove_own, folder, os.getpid())
    return folder


def digest_of(path: Path, name: str) -> FileDigest:
    """Hash and size of the bytes of a file, streamed."""
    try:
        with path.open("rb") as file:
            return FileDigest(name, hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise unreadable(name, error) from error


def unreadable(name: str, error: OSError) -> DataError:
    """The error for a path that is there but cannot be opened."""
    fix = "give yourself the right to read it (chmod u+r)" if isinstance(error, PermissionError) else ""
    return DataError(f"cannot be read: {error.strerror or error}", where=name, doing="opening a data file", fix=fix)


def no_room(name: str, folder: Path, error: OSError) -> StorageError:
    """The error for a temporary copy that could not be written."""
    free = shutil.disk_usage(folder).free
    return StorageError(
        f"no temporary copy could be written to {folder}: {error.strerror or error} ({free / 2**30:.1f} GiB free)",
        where=name,
        doing="making rows readable in any order",
        fix="set TMPDIR to a folder with more room, or decompress the file",
    )


class _Source(io.RawIOBase):
    """Raw bytes of an opened file; failures of decompression and of the disk become `DamagedStream`."""

    def __init__(self, inner: Any, compression: Compression) -> None:
        self._inner, self._compression = inner, compression
        # read1 gives what is there before it fails; GzipFile.read would lose the rows before the damage.
        self._read = inner.read1 if compression == "gzip" else inner.read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._read(min(len(buffer), CHUNK))
        except EOFError as error:
            raise DamagedStream("the gzip data end too early (the file is truncated)") from error
        except (zlib.error, OSError) as error:
            raise DamagedStream(_damage(error, self._compression)) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


def _damage(error: Exception, compression: Compression) -> str:
    if "Truncated" in str(error):
        return f"the {compression} data end too early (the file is truncated)"
    return f"the {compression} data are damaged ({error})" if compression else f"the file cannot be read further ({error})"


def _opened_at(path: Path, offset: int, compression: Compression = "") -> io.BufferedReader:
    try:
        return io.BufferedReader(_Source(_opened(path, offset, compression), compression), CHUNK)
    except OSError as error:
        raise unreadable(str(path), error) from error


def _opened(path: Path, offset: int, compression: Compression) -> IO[bytes] | Any:
    if compression == "gzip":
        return gzip.open(path, "rb")
    if compression == "zstd":
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    file = path.open("rb", buffering=0)
    file.seek(offset)
    return file


def _chunks_until_damage(stream: io.BufferedReader) -> Iterator[bytes]:
    # The rows before the damage were handed out, so they must stay readable.
    try:
        while chunk := stream.read1(CHUNK):
            yield chunk
    except DamagedStream:
        return


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked worker must not delete what its parent still reads
        shutil.rmtree(folder, ignore_errors=True)

"""What the disk says, in words: an OSError enters, a StorageError with path, need and free bytes leaves. Also fsync and free space."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orpo.errors import StorageError

_FULL = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large for the file system or for `ulimit -f`",
}
_DENIED = {errno.EACCES, errno.EPERM}

# Serialisers wrap the OSError: safetensors 0.7 says "No space left on device (os error 28)", torch 2.13 says
# "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534" or "file write failed".
_WRAPPED_FULL = re.compile(
    r"no space left|os error (28|122|27)\b|disk quota exceeded|inline_container.*(unexpected pos|write failed)", re.I | re.S
)
_WRAPPED_DENIED = re.compile(r"permission denied|os error 13\b|read-only file system|os error 30\b", re.I)


def readable_size(num_bytes: int) -> str:
    """`1.5 GiB (1610612736 bytes)`; below 1 KiB only the bytes."""
    value, unit = float(num_bytes), ""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{num_bytes} bytes" if unit == "bytes" else f"{value:.1f} {unit} ({num_bytes} bytes)"


def free_bytes(path: Path) -> int | None:
    """Bytes free for us on the file system of `path` or its nearest existing parent; None when the system cannot tell."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None


def ensure_free_space(path: Path, need_bytes: int) -> None:
    """Raises StorageError with path, need and free bytes when fewer than `need_bytes` are free. A system that cannot tell passes."""
    free = free_bytes(path)
    if free is not None and free < need_bytes:
        raise _full(path, doing="checking the free space before writing", need_bytes=need_bytes)


def storage_error(error: OSError, path: Path, *, doing: str, need_bytes: int = 0) -> StorageError:
    """The StorageError that says what `error` means at `path`."""
    if error.errno is not None and error.errno in _FULL:
        return _full(path, doing=doing, need_bytes=need_bytes, number=error.errno)
    if error.errno in _DENIED:
        return _denied("permission denied", path, doing=doing)
    if error.errno == errno.EROFS:
        return _denied("the file system is read-only", path, doing=doing)
    reason = error.strerror or str(error) or type(error).__name__
    return StorageError(
        f"{reason[:1].lower()}{reason[1:]}", where=str(path), doing=doing, fix="see that the path exists and the disk is healthy"
    )


def wrapped_storage_error(error: Exception, path: Path, *, doing: str, need_bytes: int = 0) -> StorageError | None:
    """The StorageError hidden in an exception of safetensors or torch, None when `error` is about something else."""
    if _WRAPPED_FULL.search(str(error)):
        return _full(path, doing=doing, need_bytes=need_bytes)
    if _WRAPPED_DENIED.search(str(error)):
        return _denied(f"cannot be written ({error})", path, doing=doing)
    return None


@contextmanager
def storage_errors(path: Path, doing: str, *, need_bytes: int = 0) -> Iterator[None]:
    """Turns every OSError inside the block into a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, doing=doing, need_bytes=need_bytes) from error


def fsync_directory(path: Path) -> None:
    """Nothing; afterwards the names in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a directory and say EINVAL; there is nothing stronger to ask of them.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _full(path: Path, *, doing: str, need_bytes: int, number: int = errno.ENOSPC) -> StorageError:
    free = free_bytes(path)
    need_text = f"{readable_size(need_bytes)} needed, " if need_bytes else ""
    if number == errno.ENOSPC and free is not None and need_bytes <= free:
        need_text = f"more than {readable_size(free)} needed, "  # the need was a guess from the last save, and it was too low
    free_text = f"{readable_size(free)} free" if free is not None else "free space unknown"
    return StorageError(
        f"{_FULL[number]}: {need_text}{free_text}",
        where=str(path),
        doing=doing,
        fix="free some space (or raise the quota) and run the same command again; what was written before is intact",
    )


def _denied(problem: str, path: Path, *, doing: str) -> StorageError:
    return StorageError(
        problem,
        where=str(path),
        doing=doing,
        expected=f"a place that user {os.getuid()} may write",
        fix="change the permissions or choose another --output-dir; what was written before is intact",
    )

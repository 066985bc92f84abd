"""One run directory, one writer: a lock that dies with its process. A run directory enters, the sole right to write it is held."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from orpo.errors import RunLockedError, StorageError
from orpo.runs.jsontext import read_strictly, to_text
from orpo.runs.names import LOCK
from orpo.runs.storage import storage_errors

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class RunLock:
    """Holds `run_dir` for this process inside a `with` block; RunLockedError names who holds it otherwise.

    It is `flock` on `run_dir/.lock`: the kernel lets go when the process ends, however it ends, so there is no stale
    lock to remove by hand. The text in the file (pid, host, start) is only for the message; the file stays.
    An flock belongs to the open file, which forked children share: a data-loading worker that outlives a killed
    parent would hold the run. Therefore each forked child closes its copy at once (`os.register_at_fork`), and
    leaving the `with` block in a child does nothing. Programs started with exec do not inherit it (O_CLOEXEC).
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOCK
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """True while this process holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Nothing; the lock is held. RunLockedError when another holder has it, this process included."""
        assert self._descriptor is None, "this lock is held already"
        with storage_errors(self.path, "locking the run directory"):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                self._flock(descriptor)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _holder_text(), 0)
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        _locks.add(self)

    def release(self) -> None:
        """Nothing; the lock is free. Does nothing when it is not held (in a forked child it never is)."""
        descriptor, self._descriptor = self._descriptor, None
        _locks.discard(self)
        if descriptor is not None:
            # Names nobody, before the lock goes: a reader must not be told of a holder that left.
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def _flock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked(self.path) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            raise StorageError(
                "this file system has no file locks, so two runs could write here at once",
                where=str(self.path),
                doing="locking the run directory",
                fix="choose an --output-dir on another file system, or mount this one with locks (Lustre: -o flock)",
            ) from error

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _holder_text() -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return to_text({"pid": os.getpid(), "host": socket.gethostname(), "started": started}).encode()


def _locked(path: Path) -> RunLockedError:
    """The error that names the holder; one that is just writing its name is 'another process'."""
    try:
        holder = read_strictly(path.read_text(encoding="ascii"))
        who = f"process {holder['pid']} on {holder['host']}, since {holder['started']}"
    except (OSError, ValueError, TypeError, KeyError):
        who = "another process"
    return RunLockedError(
        f"this run directory is in use by {who}",
        where=str(path.parent),
        doing="locking the run directory",
        expected="one writer per run directory",
        fix="wait for it or stop it, or give another --output-dir; a lock never outlives its process",
    )


# Held locks, strongly: one whose object a caller dropped is held all the same, and forked children must close it too.
_locks: set[RunLock] = set()


def _forget_all() -> None:
    for lock in list(_locks):
        lock._forget()
    _locks.clear()


os.register_at_fork(after_in_child=_forget_all)

"""A machine that dies at the k-th change of the disk. Loaded by path; it knows no fixture and no test.

`count` says how many changes an action makes; `die_at` stops it there by an exception that nothing handles, and every
later change fails too, as on a dead machine; `kill_at` does it with SIGKILL in a forked process; `lose_power_at`
besides loses every byte that was written and not synced.
"""

from __future__ import annotations

import os
import signal
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHANGES = ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "remove", "rmdir", "ftruncate", "pwrite")

Action = Callable[[], Any]
Stop = Callable[[], None]


class Dead(BaseException):
    """Nothing may handle it: the process is gone."""


class Trace:
    """Counts the changes of the disk, and stops before the one numbered `stop_at`. A write is torn: half of it happens."""

    def __init__(self, *, stop_at: int = 0, stop: Stop | None = None) -> None:
        self.names: list[str] = []
        self.stop_at, self.stop = stop_at, stop
        self.unsynced: dict[int, int] = {}

    def step(self, name: str) -> bool:
        self.names.append(name)
        return bool(self.stop_at) and len(self.names) >= self.stop_at


def _changes(name: str, args: tuple[Any, ...]) -> bool:
    return name != "open" or bool(args[1] & (os.O_CREAT | os.O_TRUNC))


@contextmanager
def traced(trace: Trace) -> Iterator[Trace]:
    """Every change of the disk inside the block goes through `trace`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, _wrapped(trace, name, getattr(os, name)))
        yield trace


def _wrapped(trace: Trace, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _changes(name, args):
            return real(*args, **kwargs)
        if trace.step(name):
            if name == "write" and len(trace.names) == trace.stop_at:
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            assert trace.stop is not None
            trace.stop()
        result = real(*args, **kwargs)
        _note_durability(trace, name, args)
        return result

    return call


def _note_durability(trace: Trace, name: str, args: tuple[Any, ...]) -> None:
    if name in ("write", "pwrite", "ftruncate", "fsync"):
        info = os.fstat(args[0])
        if name == "fsync":
            trace.unsynced.pop(info.st_ino, None)
        elif stat.S_ISREG(info.st_mode):
            trace.unsynced[info.st_ino] = info.st_dev


def _raise_dead() -> None:
    raise Dead


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def count(action: Action) -> list[str]:
    """The names of the changes that `action` makes, in order."""
    with traced(Trace()) as trace:
        action()
    return trace.names


def die_at(number: int, action: Action) -> Trace:
    trace = Trace(stop_at=number, stop=_raise_dead)
    with traced(trace):
        try:
            action()
        except Dead:
            return trace
    raise AssertionError(f"the action ended before change {number}")


def kill_at(number: int, action: Action) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads that other tests left; the child only writes files and dies
        child = os.fork()
    if child == 0:
        try:
            with traced(Trace(stop_at=number, stop=_kill_self)):
                action()
        finally:
            os._exit(17)  # not reached when it was killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the action ended before change {number}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def lose_power_at(number: int, action: Action, root: Path) -> None:
    """As `die_at`; then every file that was written and not synced since is empty, wherever it was renamed to."""
    trace = die_at(number, action)
    for path in root.rglob("*"):
        info = path.lstat()
        if stat.S_ISREG(info.st_mode) and info.st_ino in trace.unsynced:
            os.truncate(path, 0)

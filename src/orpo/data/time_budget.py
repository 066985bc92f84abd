"""A limit on how long untrusted Python-level work (a chat template) may run in this thread. No signals: they reach only the main thread."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Self, TypeVar

T = TypeVar("T")


class OverTimeError(Exception):
    """The work took longer than its budget and was stopped."""


class _Stop(BaseException):
    """Raised inside the work. Not an Exception, so that no handler within the work swallows it."""


class TimeBudget:
    """Runs calls in the current thread and stops each that takes longer than `seconds`; a context manager, one per batch of calls.

    A watching thread asks the interpreter to raise inside the working thread. That stops every loop of a template (jinja's sandbox
    bounds a single range, not nested ones). It cannot stop one long call into C, so `templates` refuses the operators that make one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None
        self._was_sent = False
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._worker = 0
        self._watcher = threading.Thread(target=self._watch, name="template-time-budget", daemon=True)

    def __enter__(self) -> Self:
        self._worker = threading.get_ident()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._watcher.join()

    def run(self, work: Callable[[], T]) -> T:
        """What `work()` returns. Raises OverTimeError when it was stopped."""
        has_arrived = False
        self._was_sent = False
        self._deadline = time.monotonic() + self._seconds
        try:
            try:
                return work()
            except _Stop:
                has_arrived = True
                raise
            finally:
                with self._lock:
                    self._deadline = None
                # A stop that was sent but not seen yet is waited for: taking it back (PyThreadState_SetAsyncExc with NULL)
                # leaves Python 3.11's evaluation loop looking for it for ever.
                while self._was_sent and not has_arrived:
                    time.sleep(0)
        except _Stop:
            raise OverTimeError(f"stopped after {self._seconds:g} seconds") from None

    def _watch(self) -> None:
        while not self._finished.wait(min(self._seconds / 10, 0.25)):
            with self._lock:
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._deadline, self._was_sent = None, True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._worker), ctypes.py_object(_Stop))

"""Stages in processes of their own, some at a time: work enters, names of what has ended leave. Libraries are loaded once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, ForkServerProcess

import psutil

from orpo.comparison.worker import Work, process

PRELOADED = ["orpo.comparison.worker", "transformers.models.llama.modeling_llama", "transformers.trainer", "accelerate"]
"""What is imported once, before the first stage: it takes seconds. Nothing in it starts threads or touches a GPU, so it can be forked."""


@dataclass(slots=True)
class Processes:
    """Up to `jobs` stages at a time. Use as a context manager: what still runs at the end is killed."""

    jobs: int
    context: ForkServerContext = field(default_factory=lambda: multiprocessing.get_context("forkserver"))
    running: dict[str, ForkServerProcess] = field(default_factory=dict)

    def __enter__(self) -> Processes:
        self.context.set_forkserver_preload(PRELOADED)
        return self

    def __exit__(self, *_: object) -> None:
        for running in self.running.values():
            running.kill()
        for running in self.running.values():
            running.join()

    @property
    def has_room(self) -> bool:
        """Whether another stage may start."""
        return len(self.running) < self.jobs

    def start(self, work: Work) -> None:
        """Nothing; the stage runs."""
        started = self.context.Process(target=process, args=(work,), name=work.name)
        started.start()
        self.running[work.name] = started

    def ended(self, *, timeout: float) -> dict[str, int]:
        """Name -> exit code of the stages that have ended; waits for the first of them, for up to `timeout` seconds."""
        by_sentinel = {running.sentinel: name for name, running in self.running.items()}
        found = {}
        for sentinel in connection.wait(list(by_sentinel), timeout=timeout):
            name = by_sentinel[sentinel]  # type: ignore[index]
            running = self.running.pop(name)
            running.join()
            found[name] = running.exitcode if running.exitcode is not None else 1
        return found

    def ask_to_save(self) -> None:
        """Nothing; each stage saves at the end of its step and ends."""
        for running in self.running.values():
            if running.pid is not None and running.is_alive():
                os.kill(running.pid, signal.SIGTERM)


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads not counted."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))

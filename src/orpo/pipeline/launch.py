"""Several processes from one command: settings enter, the finished run leaves. Each process runs pipeline/rank.py; this one only waits.

Where a launcher (torchrun, accelerate, srun with RANK set) has started processes already, none is started here.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from orpo.errors import ConfigError, InterruptedRun, OrpoError
from orpo.pipeline.outcome import amend
from orpo.pipeline.rank import BEGAN, RESULT, Failure, failures, job_of
from orpo.pipeline.run import Run, run_training
from orpo.runs.summary import read_summary
from orpo.training.config import ResolvedConfig
from orpo.training.ranks import planned_ranks

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

GRACE_SECONDS = 20.0
"""How long the others may take to end once one has: they lose it and record that, or save and write their pages. Then they are killed."""


def launched(resolved: ResolvedConfig) -> Run:
    """The finished run of `resolved` on as many processes of this machine as it asks for; on one, in this process.

    Raises the error of the process that failed first, as if it had been raised here.
    """
    num = ranks_to_start(resolved.config.num_processes)
    return run_training(resolved) if num == 1 else _on_processes(resolved, num)


def ranks_to_start(num_processes: int | str) -> int:
    """How many processes are to be started; 1 where a launcher did so already. Raises ConfigError for more than there are GPUs."""
    if "WORLD_SIZE" in os.environ or "RANK" in os.environ:
        return 1
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise ConfigError(
            f"srun has started {os.environ['SLURM_STEP_NUM_TASKS']} tasks, but RANK and WORLD_SIZE are not set",
            expected="tasks that know each other",
            fix="start one task for each node and torchrun in it, or set RANK, LOCAL_RANK and WORLD_SIZE (docs/many-gpus.md)",
        )
    import torch

    num, gpus = planned_ranks(num_processes), torch.cuda.device_count()
    if gpus and num > gpus:
        raise ConfigError(f"num_processes is {num}, but this machine has {gpus} GPUs", fix=f"set num_processes to {gpus} or less")
    return num


def _on_processes(resolved: ResolvedConfig, num: int) -> Run:
    with tempfile.TemporaryDirectory(prefix="orpo-") as name:
        folder = Path(name)
        processes = list[subprocess.Popen[bytes]]()
        try:
            with _forwarding(processes):
                _start(processes, job_of(resolved, folder), folder, num)
                codes = _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.communicate()  # waits, and closes the pipe
        if any(codes) or None in codes:
            raise _error(codes, folder)
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    run_dir = Path(result["run_dir"])
    return Run(run_dir, Path(result["model_dir"]), read_summary(run_dir))


def _start(processes: list[subprocess.Popen[bytes]], job: str, folder: Path, num: int) -> None:
    """Nothing; `processes` run, each with its settings. The first shares our output; what the others write is kept for a crash."""
    port = _free_port()
    for rank in range(num):
        with _held_signals(), (folder / f"{rank}.txt").open("wb") as text:
            output = None if rank == 0 else text
            process = subprocess.Popen(
                # -P: a file in the folder of the user must not take a library's place.
                [sys.executable, "-P", "-m", "orpo.pipeline.rank"],
                env=_environment(rank, num, port),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal reaches this process alone, which hands it on once
            )
            processes.append(process)
        assert process.stdin is not None, "a pipe was asked for"
        with suppress(BrokenPipeError):  # a process that has ended already is found by its exit code
            # Left open: its end tells the process that this one is gone.
            process.stdin.write(job.encode() + b"\n")
            process.stdin.flush()


@contextmanager
def _held_signals() -> Iterator[None]:
    """What is started inside gets no signal until it asks for it: it takes seconds to import what answers one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment(rank: int, num: int, port: int) -> dict[str, str]:
    """What torchrun would set, and a share of the cores for each process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    source = Path(__file__).parents[2]
    # A source tree may be on the caller's path alone; an installed package is found, and its folder must not come before Python's own.
    paths = [] if source.name in ("site-packages", "dist-packages") else [str(source)]
    return {
        "OMP_NUM_THREADS": str(max(1, cores // num)),
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _forwarding(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """While it lasts each signal that asks to stop or to save goes on to every process, once; only the main thread gets signals.

    The first stop is for the end of a step, the second for now, and the third kills: a process may be stuck where no signal reaches it.
    """
    stops: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        stops.extend([number] if number != signal.SIGUSR1 else [])
        if len(stops) > 2:
            fix = "the same command again goes on from the last checkpoint"
            raise InterruptedRun(
                f"{signal.Signals(number).name} received a third time: all processes killed", signal_number=number, fix=fix
            )
        for process in processes:
            process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Exit codes, once all have ended, or GRACE_SECONDS after one has failed: None of those that have not."""
    deadline = None
    while None in (codes := [process.poll() for process in processes]):
        if deadline is None and any(codes):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return codes


def _error(codes: Sequence[int | None], folder: Path) -> OrpoError:
    """The error of the process that failed first. Where summary.json could not know it, it does now."""
    found = failures(folder)
    first = min(found, key=lambda rank: found[rank].seconds, default=None)
    crashed = next((rank for rank, code in enumerate(codes) if code and rank not in found), None)
    # What is no error of ours may be what a process says that has lost another.
    if crashed is not None and (first is None or found[first].trace):
        error, is_known = _crash(crashed, codes, folder), False
    else:
        assert first is not None, "one has failed, and either said so or crashed"
        print(found[first].trace, end="", file=sys.stderr)  # noqa: T201
        is_known = _agree(found[first], found.get(0))
        error = found[first].error("" if is_known else f"process {first} of {len(codes)}")
    began = folder / BEGAN
    if began.exists() and not is_known:
        amend(Path(json.loads(began.read_text(encoding="utf-8"))["run_dir"]), error)
    return error


def _agree(one: Failure | None, first: Failure | None) -> bool:
    """Whether a process has failed as the first one did: then all of them have, together."""
    return one is not None and first is not None and one.parts == first.parts


def _crash(rank: int, codes: Sequence[int | None], folder: Path) -> OrpoError:
    """The error of a process that could not say what was wrong."""
    code, text = codes[rank] or 0, folder / f"{rank}.txt"
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    last = text.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-20:] if text.exists() else []
    return OrpoError(
        "\n".join([f"process {rank} of {len(codes)} {how}", *last]),
        doing="training on several processes; the others were stopped",
        fix="SIGKILL is what a system out of memory sends: train with fewer processes or tokens at once; "
        "the same command again goes on from the last checkpoint",
    )

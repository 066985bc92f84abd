"""Starts `orpo train` again and again, kills it at chosen moments, and compares what is left with a run nobody touched.

Loaded by path: the suite runs a few kills, `make soak` fifty.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path


@dataclass
class Tally:
    """What happened: kills that left a checkpoint to go on from, how many of them hit a save, and how often the next start went on from it.

    Kills before a run's first checkpoint are counted apart: there is nothing yet to resume.
    """

    kills: int = 0
    inside_a_save: int = 0
    resumed: int = 0
    before_the_first_checkpoint: int = 0
    during_start_up: int = 0


def train_command(model: Path, data: Path, run_dir: Path, extra: Sequence[str] = ()) -> list[str]:
    """A run of 40 steps that saves after every second one."""
    return [
        *(sys.executable, "-m", "orpo", "train", "--model", str(model), "--data", str(data), "--output-dir", str(run_dir)),
        *("--max-steps", "40", "--save-steps", "2", "--save-total-limit", "3", "--pairs-per-step", "4", "--learning-rate", "1e-3"),
        *("--dtype", "float32", "--logging-steps", "1", "--num-samples", "0", "--seed", "3", *extra),
    ]


def environment() -> dict[str, str]:
    """One thread per process, so that sums are made in the same order in every run; no network."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CI": "1", "PYTHONUNBUFFERED": "1"}


def state_hashes(run_dir: Path) -> dict[str, str]:
    """sha256 of the final weights, optimizer, schedule and RNG: the files that must be the same to the last bit."""
    newest = max(run_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    names = ["optimizer.pt", "scheduler.pt", "rng_state.pth", *(path.name for path in newest.glob("*.safetensors"))]
    return {f"{newest.name}/{name}": hashlib.sha256((newest / name).read_bytes()).hexdigest() for name in names}


def finish_here(command: Sequence[str]) -> str:
    """Runs an `orpo` command to its end in this process, without another start of the interpreter, and returns its output."""
    from orpo.cli.main import app

    with redirect_stdout(StringIO()) as said:
        app(list(command[3:]), standalone_mode=False)
    return said.getvalue()


def kill_until_done(command: Sequence[str], run_dir: Path, *, num_kills: int, seed: int, start_over: Callable[[], None]) -> Tally:
    """Kills `command` `num_kills` times, every other time inside a save, restarting it after each, and lets it finish.

    When a run ends before its kill, `start_over` removes it and the count goes on: every kill hits a run that is going.
    """
    tally, moments, owed = Tally(), random.Random(seed), False
    while tally.kills < num_kills:
        want_save = tally.kills % 2 == 0
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        hit = _kill_inside_save(process, run_dir, moments) if want_save else _kill_any_time(process, run_dir, moments)
        output = process.communicate()[0]
        if owed and "resuming from checkpoint-" in output:
            tally.resumed += 1
            owed = False
        # A kill during start-up, before the run says what it does, is neither: the next start owes the answer.
        assert not (owed and "step 1/" in output), f"a checkpoint was there and was not taken\n{output}"
        if process.returncode == 0:
            start_over()
            continue
        assert process.returncode == -signal.SIGKILL, f"exit {process.returncode}\n{output}"
        if not any(run_dir.glob("checkpoint-*")):
            tally.before_the_first_checkpoint += 1
            continue
        if owed:
            tally.during_start_up += 1
            continue
        owed = True
        tally.kills += 1
        tally.inside_a_save += hit
    assert "resuming from checkpoint-" in finish_here(command)
    tally.resumed += 1
    return tally


def _staging(run_dir: Path) -> bool:
    return any(run_dir.glob(".staging-*"))


def _kill_inside_save(process: subprocess.Popen[str], run_dir: Path, moments: random.Random) -> bool:
    """Kills a moment after one of the next few saves began; True when it was still being written."""
    while _staging(run_dir) and process.poll() is None:  # what the kill before left; a start clears it away
        time.sleep(0.0002)
    skip = moments.randrange(4)
    while process.poll() is None:
        if _staging(run_dir):
            if skip == 0:
                time.sleep(moments.random() * 0.02)
                process.send_signal(signal.SIGKILL)
                process.wait()
                return _staging(run_dir)
            skip -= 1
            while _staging(run_dir) and process.poll() is None:
                time.sleep(0.0002)
        time.sleep(0.0002)
    return False


def _kill_any_time(process: subprocess.Popen[str], run_dir: Path, moments: random.Random) -> bool:
    """Kills at a moment up to a second after training began, wherever it is then."""
    log = run_dir / "metrics.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    while process.poll() is None and (not log.exists() or log.stat().st_mtime_ns == before):
        time.sleep(0.001)
    time.sleep(moments.random())
    process.send_signal(signal.SIGKILL)
    process.wait()
    return _staging(run_dir)

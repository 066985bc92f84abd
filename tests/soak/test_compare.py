"""Comparisons that are killed or stopped from the keyboard, as commands, and go on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.soak

CONFIG = """\
model: {model}
data: {data}
holdout: 10
validation: 8
pipelines: [orpo, sft > dpo]
budget: 6 steps
seeds: 2
tune_by: accuracy
tune:
  orpo: {{learning_rate: [1e-3, 1e-2]}}
  sft: {{learning_rate: [1e-3, 1e-2]}}
  dpo: {{learning_rate: [1e-3, 1e-2]}}
settings: {{pairs_per_step: 4, dtype: float32, max_new_tokens: 4}}
jobs: 2
"""

NUM_KILLS = 6


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CI": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}


@pytest.fixture(scope="module")
def file(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a toy comparison."""
    folder = tmp_path_factory.mktemp("compare")
    rows = [
        {"prompt": f"{i}: what is it?", "chosen": " a city" + " by the sea" * (i % 3), "rejected": " no" * (i % 4 + 1)} for i in range(48)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "toy.yaml"
    path.write_text(CONFIG.format(model=tiny_llama, data=folder / "pairs.jsonl"))
    return path


@pytest.fixture(scope="module")
def whole(file: Path) -> dict[str, Any]:
    """What the comparison comes to when nobody disturbs it."""
    finish(file, file.parent / "whole")
    return measured(file.parent / "whole")


def command(file: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "orpo", "compare", str(file), "--output-dir", str(folder)]


def finish(file: Path, folder: Path) -> str:
    done = subprocess.run(command(file, folder), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def measured(folder: Path) -> dict[str, Any]:
    """compare.json without what differs from run to run: times, memory, command."""
    found = json.loads((folder / "compare.json").read_text())
    kept = {key: value for key, value in found.items() if key not in ("started", "finished", "seconds", "command", "environment")}
    for pipeline in kept["pipelines"]:
        for part in (*pipeline["cost"]["stages"], pipeline["cost"]["total"], pipeline["cost"]["tuning"]):
            part.pop("seconds")
            part.pop("peak_memory_gib", None)
    return kept


def num_done(folder: Path) -> int:
    """Stages with a result."""
    return len(list(folder.glob("stages/*/result.json")))


def started(file: Path, folder: Path, *, until: Callable[[], bool]) -> subprocess.Popen[str]:
    """The command, running, at the moment when `until` holds."""
    process = subprocess.Popen(command(file, folder), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not until():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    return process


def require_gone(processes: list[psutil.Process]) -> None:
    """Nothing; fails where one of them is still there after ten seconds."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_comparison_killed_at_any_moment_goes_on_and_comes_to_the_same(file: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    moments, folder, kills = random.Random(11), tmp_path / "killed", 0
    for _ in range(NUM_KILLS):
        before = len(list(folder.glob("stages/*/result.json")))
        if before >= 11:
            break
        wanted = before + moments.randint(1, 2)
        process = started(file, folder, until=lambda wanted=wanted: num_done(folder) >= wanted)
        time.sleep(1.5 * moments.random())
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        require_gone(children)
        kills += 1
    assert kills >= 4
    assert "done before" in finish(file, folder)
    assert measured(folder) == whole


def test_ctrl_c_saves_what_runs_and_says_how_to_go_on(file: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    process = started(file, folder, until=lambda: bool(list(folder.glob("stages/*/run/metrics.jsonl"))))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert "the same command again goes on from here" in output
    assert json.loads((folder / "compare.json").read_text())["status"] == "running"
    require_gone(children)
    finish(file, folder)
    assert measured(folder) == whole


def test_a_second_ctrl_c_ends_it_at_once(file: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    process = started(file, folder, until=lambda: bool(list(folder.glob("stages/*/run/metrics.jsonl"))))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    require_gone(children)
    finish(file, folder)
    assert measured(folder) == whole

"""Processes that the command starts itself: their result, their signals, their errors; and when none are started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from orpo.errors import ConfigError, DataError, InterruptedRun, OrpoError
from orpo.pipeline import launch
from orpo.pipeline.rank import BEGAN, PARTS, Failure, failures, job_of, settings_of
from orpo.runs.summary import RunSummary, read_summary, write_summary
from orpo.training.config import resolve_config
from orpo.training.ranks import planned_ranks, require_ranks, start_ranks

STEPS = 30
LONG = {"max_steps": STEPS, "save_steps": 10, "save_total_limit": 2}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CI", "1")


def after_first_step(run_dir: Path, act: Callable[[], None]) -> threading.Thread:
    """A thread that acts once the run has logged a step."""

    def watch() -> None:
        for _ in range(6000):
            with suppress(OSError):
                if '"train"' in (run_dir / "metrics.jsonl").read_text():
                    return act()
            time.sleep(0.01)
        return None

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.soak
def test_processes_stop_together_with_a_checkpoint_and_go_on_to_what_one_gives(
    train: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], rows: Callable[[Path], list[dict[str, Any]]]
) -> None:
    after_first_step(tmp_path / "two", lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(InterruptedRun, match=r"stopped at step \d+ of 30; a checkpoint is saved") as stopped:
        train("two", num_processes=2, sharding="fsdp", **LONG)
    assert stopped.value.exit_code == 143
    assert read_summary(tmp_path / "two").status == "interrupted"
    run = train("two", num_processes=2, sharding="fsdp", **LONG)
    said = capfd.readouterr()
    assert len(re.findall("SIGTERM received", said.out)) == 1
    assert len(re.findall(r"^resuming from checkpoint-\d+", said.out, re.MULTILINE)) == 1
    assert len(re.findall(rf"^step {STEPS}/{STEPS} ", said.out, re.MULTILINE)) == 1, "the first process alone prints"
    assert said.err == ""
    one = train("one", **LONG)
    losses, expected = ([row["loss"] for row in rows(tmp_path / name)] for name in ("two", "one"))
    assert len(losses) == STEPS
    assert losses == pytest.approx(expected, abs=1e-5)
    weights, whole = (load_file(found.model_dir / "model.safetensors") for found in (run, one))
    assert max(float((weights[name] - whole[name]).abs().max()) for name in whole) < 1e-5
    assert run.summary.status == "done"
    assert json.loads((run.run_dir / "env.json").read_text())["world_size"] == 2


@pytest.mark.soak
def test_an_error_of_all_processes_is_raised_once_as_it_would_be_in_one(
    train: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": 1}\n')
    with pytest.raises(DataError) as one:
        train("one", data=str(bad))
    with pytest.raises(DataError) as two:
        train("two", data=str(bad), num_processes=2)
    assert str(two.value) == str(one.value)
    assert capfd.readouterr().err == ""


@pytest.mark.soak
def test_a_process_that_is_killed_is_named_and_stops_the_others(train: Callable[..., Any], tmp_path: Path) -> None:
    def kill() -> None:
        (second,) = (child for child in psutil.Process().children(recursive=True) if child.environ().get("RANK") == "1")
        second.kill()

    after_first_step(tmp_path / "run", kill)
    started = time.monotonic()
    with pytest.raises(OrpoError, match="process 1 of 2 was ended by SIGKILL") as found:
        train("run", num_processes=2, **(LONG | {"max_steps": 2000}))
    assert time.monotonic() - started < 60
    summary = read_summary(tmp_path / "run")
    assert (summary.status, summary.exit_code, summary.error) == ("failed", 1, str(found.value))


def failure(seconds: float, problem: str, *, trace: str = "", kind: str = "OrpoError", code: int = 1) -> Failure:
    return Failure(seconds, kind, code, {**dict.fromkeys(PARTS, ""), "problem": problem, "fix": "do"}, trace)


def left(folder: Path, found: dict[int, Failure]) -> None:
    """What processes leave in their folder, and an unfinished run that they had begun."""
    for rank, failed in found.items():
        (folder / f"{rank}.json").write_text(json.dumps(asdict(failed)))
    (folder / BEGAN).write_text(json.dumps({"run_dir": str(folder)}))
    write_summary(folder, RunSummary("failed", ("orpo",), "2026-01-01", exit_code=1, error="lost"))


LOST = failure(2.0, "RuntimeError: Connection closed by peer", trace="Traceback: lost\n")


@pytest.mark.parametrize(
    ("found", "codes", "kind", "code", "text"),
    [
        ({0: LOST, 1: failure(1.0, "a disk is full", kind="StorageError", code=6)}, [1, 6], "StorageError", 6, "a disk is full"),
        ({0: LOST}, [1, -9], "OrpoError", 1, "process 1 of 2 was ended by SIGKILL"),
        ({}, [None, 3], "OrpoError", 1, "process 1 of 2 ended with exit code 3\nlast words"),
        ({0: failure(3.0, "the GPU is full", kind="OutOfMemoryError", code=7)}, [7, None], "OutOfMemoryError", 7, "the GPU is full"),
        ({0: failure(1.0, "stopped", kind="InterruptedRun", code=143)}, [143, 143], "InterruptedRun", 143, "stopped"),
    ],
)
def test_the_error_is_that_of_the_process_that_failed_first(
    found: dict[int, Failure], codes: list[int | None], kind: str, code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left(tmp_path, found)
    (tmp_path / "1.txt").write_text("first words\n" * 30 + "last words\n")
    error = launch._error(codes, tmp_path)
    assert (type(error).__name__, error.exit_code) == (kind, code)
    assert error.problem.startswith(text) or error.problem.endswith(text.partition("\n")[2])
    assert capsys.readouterr().err == ""
    knew = 0 in found and not found[0].trace
    assert read_summary(tmp_path).error == ("lost" if knew else str(error))


def test_a_mistake_of_ours_keeps_its_trace_and_names_the_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left(tmp_path, {0: LOST, 1: failure(1.0, "KeyError: 'a'", trace="Traceback: here\n")})
    error = launch._error([1, 1], tmp_path)
    assert error.problem == "KeyError: 'a'"
    assert error.doing == "in process 1 of 2"
    assert capsys.readouterr().err == "Traceback: here\n"
    assert sorted(failures(tmp_path)) == [0, 1]


def test_settings_reach_the_processes_with_their_origins(tmp_path: Path) -> None:
    file = tmp_path / "orpo.yaml"
    file.write_text(
        "recipe: llama3-orpo-qlora\nmodel: m\ndata: [a.jsonl, b.jsonl]\nlora_target_modules: [q_proj]\npref_beta: 0.3\nholdout: 0.1\n"
    )
    for flags in ({}, {"objective": "dpo", "recipe": None, "data": ["c.jsonl"]}, {"preset": "trl", "max_steps": 30, "num_processes": "2"}):
        resolved = resolve_config(file=file, flags=flags)
        assert settings_of(json.loads(job_of(resolved, tmp_path))) == resolved


@pytest.mark.parametrize(
    ("asked", "environment", "num"),
    [("auto", {}, 1), (3, {}, 3), ("auto", {"WORLD_SIZE": "4", "RANK": "1"}, 1), (4, {"WORLD_SIZE": "4", "RANK": "1"}, 1)],
)
def test_processes_are_started_unless_a_launcher_has_done_so(
    asked: int | str, environment: dict[str, str], num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch.ranks_to_start(asked) == num
    assert planned_ranks(asked) == int(environment.get("WORLD_SIZE", num))


def test_gpus_are_counted_and_not_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch.ranks_to_start("auto") == 2
    with pytest.raises(ConfigError, match="num_processes is 3, but this machine has 2 GPUs"):
        launch.ranks_to_start(3)


def test_tasks_of_srun_that_do_not_know_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(ConfigError, match="srun has started 8 tasks, but RANK and WORLD_SIZE are not set"):
        launch.ranks_to_start("auto")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert launch.ranks_to_start(1) == 1


def test_settings_that_ask_for_other_processes_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="num_processes is 2, but this one was started alone"):
        require_ranks(2, "none")
    with pytest.raises(ConfigError, match="sharding is fsdp, but there is one process"):
        require_ranks("auto", "fsdp")
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    require_ranks(8, "fsdp")
    with pytest.raises(ConfigError, match="num_processes is 16, but 8 were started"):
        require_ranks(16, "none")


def test_a_configuration_of_accelerate_that_divides_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="ACCELERATE_USE_FSDP is set"):
        start_ranks()


def test_each_process_gets_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    found = launch._environment(1, 3, 1234)
    assert found["OMP_NUM_THREADS"] == "2"
    assert {name: found[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")} == {
        **{"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "3", "MASTER_PORT": "1234"}
    }
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert launch._environment(1, 3, 1234)["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_processes": 1}, "num_processes"),
        ({"use_peft": True, "load_in_4bit": True}, "load_in_4bit"),
        ({"optim": "adafactor"}, "optim"),
    ],
)
def test_what_sharding_contradicts_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"sharding \(flag --sharding\) and {named} .*contradict"):
        resolve_config(flags={"model": "m", "data": "d.jsonl", "sharding": "fsdp", **settings})


def test_the_scripts_of_the_page_on_many_gpus_are_scripts(root: Path) -> None:
    scripts = re.findall(r"```bash\n(.*?)```", (root / "docs/many-gpus.md").read_text(), re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)

"""A run that was stopped goes on as if it had not been, to the last bit; one that changed is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orpo.errors import CheckpointError, ConfigError, InterruptedRun, NotFiniteError, RunLockedError
from orpo.runs.lock import RunLock
from orpo.runs.summary import read_summary


def hashes(run_dir: Path, step: int = 8) -> dict[str, str]:
    """sha256 of weights, optimizer, schedule and RNG of a checkpoint, and of the exported weights."""
    folder = run_dir / f"checkpoint-{step}"
    files = [folder / name for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth")] + sorted(folder.glob("*.safetensors"))
    files += sorted(run_dir.glob("model/*.safetensors")) + sorted(run_dir.glob("adapter/*.safetensors"))
    return {str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def forget_after(run_dir: Path, step: int) -> None:
    """Makes a finished run look as if it had been killed right after the checkpoint of `step`."""
    for path in run_dir.glob("checkpoint-*"):
        if int(path.name.split("-")[1]) > step:
            shutil.rmtree(path)
    for name in ("model", "adapter"):
        shutil.rmtree(run_dir / name, ignore_errors=True)


FOUR_BITS = pytest.param(
    {"use_peft": True, "load_in_4bit": True, "lora_r": 64, "optim": "paged_adamw_8bit"},
    id="4 bits",
    marks=pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"),
)


@pytest.mark.parametrize(
    "settings",
    [pytest.param({}, id="full"), pytest.param({"use_peft": True, "lora_dropout": 0.1, "lora_r": 4}, id="lora with dropout"), FOUR_BITS],
)
def test_a_resumed_run_ends_with_the_same_bits(train: Callable[..., Any], rows: Callable[..., Any], settings: dict[str, Any]) -> None:
    run_dir = train(**settings).run_dir
    whole, logged = hashes(run_dir), rows(run_dir)
    for step in (2, 6):
        forget_after(run_dir, step)
        assert train(**settings).run_dir == run_dir
        assert hashes(run_dir) == whole
        again = rows(run_dir)
        assert [(row["step"], row["loss"], row["num_pairs"], row["num_tokens"]) for row in again] == [
            (row["step"], row["loss"], row["num_pairs"], row["num_tokens"]) for row in logged
        ]


def test_a_finished_run_is_left_as_it_is(train: Callable[..., Any]) -> None:
    run_dir = train().run_dir
    before = hashes(run_dir)
    assert train().summary.status == "done"
    assert hashes(run_dir) == before


def test_damage_to_the_newest_checkpoint_falls_back_and_is_said(train: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = train().run_dir
    whole = hashes(run_dir)
    forget_after(run_dir, 6)
    weights = run_dir / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5] + b"wrong")
    capsys.readouterr()
    train()
    output = capsys.readouterr().out
    assert "skipped checkpoint-6: model.safetensors" in output
    assert "resuming from checkpoint-4" in output
    assert hashes(run_dir) == whole


def test_when_no_checkpoint_is_valid_the_run_stops_with_exit_8(train: Callable[..., Any]) -> None:
    run_dir = train().run_dir
    for path in run_dir.glob("checkpoint-*"):
        (path / "optimizer.pt").unlink()
    with pytest.raises(CheckpointError, match="none of the 4 checkpoints here is valid") as caught:
        train()
    assert caught.value.exit_code == 8


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"learning_rate": 5e-4}, "learning_rate"),
    ({"seed": 1}, "seed"),
    ({"pairs_per_step": 2}, "pairs_per_step"),
    ({"max_steps": 12}, "max_steps"),
    ({"beta": 0.3}, "options.beta"),
    ({"nll_over": "prompt+completion"}, "options.nll_over"),
    ({"objective": "sft"}, "objective"),
    ({"weight_decay": 0.1}, "weight_decay"),
    ({"warmup_steps": 2}, "warmup_steps"),
    ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type"),
    ({"max_grad_norm": 0.5}, "max_grad_norm"),
    ({"max_length": 30}, "data.max_length"),
    ({"dtype": "bfloat16"}, "dtype"),
]


def test_each_changed_setting_is_refused_with_a_table_and_nothing_changes(train: Callable[..., Any]) -> None:
    run_dir = train().run_dir
    forget_after(run_dir, 4)
    before = sorted(path.name for path in run_dir.iterdir())
    for change, field in CHANGES:
        with pytest.raises(CheckpointError, match="other settings or data") as caught:
            train(**change)
        assert field in str(caught.value), change
        assert "--resume-anyway" in str(caught.value)
    assert sorted(path.name for path in run_dir.iterdir()) == before


def test_changed_data_and_a_changed_base_model_are_refused(
    train: Callable[..., Any], pairs_file: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    run_dir = train().run_dir
    forget_after(run_dir, 4)
    other = tmp_path / "other.jsonl"
    other.write_text(pairs_file.read_text().replace("cat", "dog", 1))
    with pytest.raises(CheckpointError, match=r"data\.files"):
        train(data=str(other))
    model = tmp_path / "other-model"
    shutil.copytree(tiny_llama, model)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"base_model\.weights_sha256"):
        train(model=str(model))


def test_a_new_learning_rate_applies_when_resumed_anyway(train: Callable[..., Any], rows: Callable[..., Any]) -> None:
    run_dir = train(lr_scheduler_type="constant").run_dir
    forget_after(run_dir, 4)
    train(lr_scheduler_type="constant", learning_rate=5e-4, resume_anyway=True)
    assert [row["learning_rate"] for row in rows(run_dir)] == [1e-3] * 4 + [5e-4] * 4


def test_what_may_change_may_change(train: Callable[..., Any]) -> None:
    run_dir = train().run_dir
    whole = hashes(run_dir)
    forget_after(run_dir, 4)
    train(logging_steps=3, save_steps=4, num_samples=1)
    assert {name: value for name, value in hashes(run_dir).items() if "model" in name} == {
        name: value for name, value in whole.items() if "model" in name
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_a_step_boundary_and_the_same_command_goes_on(
    train: Callable[..., Any], tmp_path: Path, number: signal.Signals
) -> None:
    whole = hashes(train("untouched", save_steps=100).run_dir)
    log = tmp_path / "run" / "metrics.jsonl"

    def send() -> None:
        while not log.exists() or len(log.read_text().splitlines()) < 3:
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(InterruptedRun, match="a checkpoint is saved") as caught:
        train(save_steps=100)
    sender.join()
    assert caught.value.exit_code == 128 + number
    assert read_summary(tmp_path / "run").status == "interrupted"
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 1
    assert hashes(train(save_steps=100).run_dir) == whole


def test_fresh_moves_the_earlier_run_aside_and_loses_nothing(train: Callable[..., Any], tmp_path: Path) -> None:
    first = hashes(train().run_dir)
    train(fresh=True, seed=1)
    assert hashes(tmp_path / "run.old-1") == first
    assert hashes(tmp_path / "run") != first


def test_one_run_directory_has_one_writer(train: Callable[..., Any], tmp_path: Path) -> None:
    run_dir = train().run_dir
    with RunLock(run_dir), pytest.raises(RunLockedError) as caught:
        train()
    assert caught.value.exit_code == 9


def test_a_folder_that_is_no_run_is_never_written_to(train: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no run of orpo"):
        train()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_without_output_dir_the_same_command_resumes_and_another_gets_a_new_folder(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_dir = train(output_dir=None).run_dir
    whole = hashes(run_dir)
    forget_after(run_dir, 4)
    summary = run_dir / "summary.json"
    summary.write_text(summary.read_text().replace('"done"', '"failed"'))
    assert train(output_dir=None).run_dir == run_dir
    assert hashes(run_dir) == whole
    assert train(output_dir=None).run_dir.name == "orpo-tiny-llama-2"


def test_rows_of_metrics_average_the_same_steps_after_a_resume(train: Callable[..., Any], rows: Callable[..., Any]) -> None:
    run_dir = train(logging_steps=5, save_steps=3).run_dir
    logged = [(row["step"], row["loss"], row["nll_loss"]) for row in rows(run_dir)]
    assert [step for step, *_ in logged] == [1, 3, 5, 6, 8]
    forget_after(run_dir, 3)
    train(logging_steps=5, save_steps=3)
    assert [(row["step"], row["loss"], row["nll_loss"]) for row in rows(run_dir)] == logged


def test_a_run_whose_checkpoints_were_deleted_is_not_overwritten(train: Callable[..., Any]) -> None:
    run_dir = train().run_dir
    for path in run_dir.glob("checkpoint-*"):
        shutil.rmtree(path)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file() and path.name != ".lock"}
    with pytest.raises(ConfigError, match="without checkpoints"):
        train(learning_rate=2e-3)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file() and path.name != ".lock"} == before


def test_other_prompts_are_answered_after_a_resume_with_another_number_of_samples(train: Callable[..., Any]) -> None:
    run_dir = train(holdout=5, num_samples=2, max_new_tokens=3).run_dir
    forget_after(run_dir, 4)
    train(holdout=5, num_samples=3, max_new_tokens=3)
    rows = [json.loads(line) for line in (run_dir / "samples.jsonl").read_text().splitlines()]
    assert rows
    assert all(row["before"] is not None and row["after"] is not None for row in rows)


def test_changed_optimizer_settings_apply_when_resumed_anyway(train: Callable[..., Any]) -> None:
    run_dir = train().run_dir
    forget_after(run_dir, 4)
    train(weight_decay=0.5, adam_beta2=0.9, resume_anyway=True)
    groups = torch.load(run_dir / "checkpoint-8" / "optimizer.pt", weights_only=True)["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert all(tuple(group["betas"]) == (0.9, 0.9) for group in groups)


def test_weights_of_another_kind_are_refused_whatever_the_user_says(train: Callable[..., Any]) -> None:
    run_dir = train().run_dir
    forget_after(run_dir, 4)
    with pytest.raises(CheckpointError, match="not those of the new settings"):
        train(use_peft=True, resume_anyway=True)


def test_resume_anyway_finds_the_unfinished_run_without_its_name(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_dir = train(output_dir=None).run_dir
    forget_after(run_dir, 4)
    summary = run_dir / "summary.json"
    summary.write_text(summary.read_text().replace('"done"', '"failed"'))
    assert train(output_dir=None, learning_rate=5e-4, resume_anyway=True).run_dir == run_dir
    summary.write_text(summary.read_text().replace('"done"', '"failed"'))
    capsys.readouterr()
    assert train(output_dir=None, seed=9).run_dir != run_dir
    assert "is unfinished, with other settings or data" in capsys.readouterr().out


def test_a_signal_outside_of_training_is_recorded_too(train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import orpo.pipeline.run as pipeline

    monkeypatch.setattr(pipeline, "export_model", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(InterruptedRun, match="SIGTERM received") as caught:
        train()
    assert caught.value.exit_code == 143
    assert read_summary(tmp_path / "run").status == "interrupted"
    monkeypatch.undo()
    assert train().summary.status == "done"


def test_an_error_while_recording_an_error_does_not_hide_the_first(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import orpo.pipeline.outcome as outcome
    import orpo.pipeline.run as pipeline

    def broken(*_: Any) -> None:
        raise OSError("no space for the page")

    def stopped(*_: Any, **__: Any) -> None:
        raise NotFiniteError("the first error")

    monkeypatch.setattr(pipeline, "train_from", stopped)
    monkeypatch.setattr(outcome, "write_pages", broken)
    with pytest.raises(NotFiniteError, match="the first error") as caught:
        train()
    assert "no space for the page" in caught.value.__notes__[0]

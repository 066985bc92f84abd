"""Damaged checkpoints through the real run: each kind falls back to the one before it, says so, and ends with the untouched bits."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from killing import state_hashes


def damage_table() -> ModuleType:
    """tests/runs/damage.py: the kinds of damage, each a function on the newest and the older checkpoint."""
    path = Path(__file__).parent.parent / "runs" / "damage.py"
    spec = importlib.util.spec_from_file_location("damage_table", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["damage_table"] = module
    spec.loader.exec_module(module)
    return module


def finished_run(model: Path, folder: Path, extra: dict[str, Any]) -> tuple[Callable[[], Any], Path]:
    """A command that trains 6 steps with a checkpoint after every second one, and the directory of its finished run."""
    import orpo

    data = folder / "pairs.jsonl"
    rows = [{"prompt": f"question {i}", "chosen": f" answer {i} it is", "rejected": f" no {i}"} for i in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"max_steps": 6, "save_steps": 2, "save_total_limit": 9, "pairs_per_step": 2, "learning_rate": 1e-3, "dtype": "float32"}
    settings |= {"model": str(model), "data": str(data), "output_dir": str(folder / "run"), "num_samples": 0, **extra}

    def train() -> Any:
        return orpo.train(**settings)

    train()
    return train, folder / "run"


def recover_from_every_kind(model: Path, folder: Path, capsys: pytest.CaptureFixture[str], *, every: int, **extra: Any) -> None:
    """Asserts what this file promises for every `every`-th kind of damage, and prints the figures."""
    train, run_dir = finished_run(model, folder, extra)
    untouched, kept = state_hashes(run_dir), folder / "kept"
    shutil.copytree(run_dir, kept, symlinks=True)
    damages = damage_table().DAMAGES[::every]
    fell_back = 0
    for damage in damages:
        shutil.rmtree(run_dir)
        shutil.copytree(kept, run_dir, symlinks=True)
        shutil.rmtree(run_dir / "model", ignore_errors=True)
        damage.apply(run_dir / "checkpoint-6", run_dir / "checkpoint-4")
        capsys.readouterr()
        train()
        output = capsys.readouterr().out
        assert "skipped checkpoint-6" in output, damage.name
        assert "resuming from checkpoint-4" in output, damage.name
        assert state_hashes(run_dir) == untouched, damage.name
        fell_back += 1
    with capsys.disabled():
        print(f"{len(damages)} kinds of damaged checkpoint: {fell_back} fell back to the one before, 0 silent")


def test_some_kinds_of_damage_fall_back(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recover_from_every_kind(tiny_llama, tmp_path, capsys, every=16)


@pytest.mark.soak
def test_every_kind_of_damage_falls_back(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recover_from_every_kind(tiny_llama, tmp_path, capsys, every=1)


@pytest.mark.soak
def test_damage_to_a_lora_run_falls_back(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recover_from_every_kind(tiny_llama, tmp_path, capsys, every=5, use_peft=True, lora_r=4)

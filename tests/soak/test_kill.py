"""kill -9 at random moments, half of them inside a save: what is left in the end is what an untouched run leaves, to the last bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from killing import finish_here, kill_until_done, state_hashes, train_command

LORA = ("--use-peft", "--lora-r", "4", "--lora-dropout", "0.1")


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"prompt": f"question {i}", "chosen": f" answer {i} it is", "rejected": f" no {i}"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def killed_and_untouched(model: Path, data: Path, folder: Path, *, num_kills: int, seed: int, extra: tuple[str, ...]) -> None:
    """Asserts what this file promises, and prints the figures."""
    untouched, run_dir = folder / "untouched", folder / "killed"
    finish_here(train_command(model, data, untouched, extra))
    command = train_command(model, data, run_dir, extra)
    tally = kill_until_done(command, run_dir, num_kills=num_kills, seed=seed, start_over=lambda: shutil.rmtree(run_dir))
    print(f"{tally.kills} x kill -9, {tally.inside_a_save} of them while a checkpoint was being written: {tally.resumed} resumed", end="")
    print(f" (and {tally.before_the_first_checkpoint} x before the first checkpoint, {tally.during_start_up} x during start-up)")
    assert tally.resumed == tally.kills == num_kills
    assert state_hashes(run_dir) == state_hashes(untouched)
    rows = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (run_dir, untouched)]
    assert [(r["step"], r["loss"]) for r in rows[0]] == [(r["step"], r["loss"]) for r in rows[1]]


@pytest.mark.soak
def test_two_kills_leave_no_trace(tiny_llama: Path, pairs_file: Path, tmp_path: Path) -> None:
    killed_and_untouched(tiny_llama, pairs_file, tmp_path, num_kills=2, seed=1, extra=())


@pytest.mark.soak
def test_fifty_kills_leave_no_trace(tiny_llama: Path, pairs_file: Path, tmp_path: Path) -> None:
    killed_and_untouched(tiny_llama, pairs_file, tmp_path, num_kills=50, seed=2, extra=())


@pytest.mark.soak
def test_ten_kills_of_a_lora_run_leave_no_trace(tiny_llama: Path, pairs_file: Path, tmp_path: Path) -> None:
    killed_and_untouched(tiny_llama, pairs_file, tmp_path, num_kills=10, seed=3, extra=LORA)

"""held_out.jsonl: every held-out pair before training and at the last evaluation; its means are the logged ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def held_out(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "held_out.jsonl").read_text().splitlines()]


def means(pairs: list[dict[str, Any]], when: str) -> tuple[float, float, float]:
    """Accuracy, and the mean log p of chosen and rejected."""
    values = [pair[when] for pair in pairs]
    right = sum(value["chosen"] > value["rejected"] for value in values)
    return right / len(values), *(sum(value[name] for value in values) / len(values) for name in ("chosen", "rejected"))  # type: ignore[return-value]


@pytest.mark.parametrize("objective", ["orpo", "sft", "dpo"])
def test_the_means_of_single_pairs_are_what_was_logged(train: Callable[..., Any], rows: Callable[..., Any], objective: str) -> None:
    run_dir = train(objective=objective, holdout=7, eval_steps=3, save_steps=None, tokens_per_micro_batch=90).run_dir
    pairs, logged = held_out(run_dir), [row for row in rows(run_dir) if row["split"] == "eval"]
    assert [pair["pair"] for pair in pairs] == list(range(7))
    assert len({pair["source"] for pair in pairs}) == 7
    assert {pair["step"] for pair in pairs} == {8}
    for when, row in (("before", logged[0]), ("after", logged[-1])):
        expected = [row[name] for name in ("rewards/accuracies", "logps/chosen", "logps/rejected")]
        expected[0] = means(pairs, when)[0] if objective == "dpo" else expected[0]  # DPO's is that of its rewards
        assert means(pairs, when) == pytest.approx(expected, abs=1e-6)


def test_a_resumed_run_keeps_what_was_measured_before_training(train: Callable[..., Any]) -> None:
    run_dir = train(holdout=5).run_dir
    whole = held_out(run_dir)
    for name in ("checkpoint-8", "checkpoint-6", "model"):
        shutil.rmtree(run_dir / name)
    train(holdout=5)
    again = held_out(run_dir)
    assert [(pair["source"], pair["before"]) for pair in again] == [(pair["source"], pair["before"]) for pair in whole]
    assert [pair["after"] for pair in again] == [pair["after"] for pair in whole]


def test_a_reward_model_has_its_scores_there_and_single_answers_have_no_pairs(train: Callable[..., Any]) -> None:
    scored = held_out(train("scored", objective="reward", holdout=4, save_steps=None).run_dir)
    assert len(scored) == 4
    assert all(pair["before"] != pair["after"] for pair in scored)
    assert not (train("labelled", objective="kto", holdout=4, save_steps=None).run_dir / "held_out.jsonl").exists()


def test_without_held_out_pairs_there_is_no_file(train: Callable[..., Any]) -> None:
    assert not (train(max_steps=2, save_steps=None).run_dir / "held_out.jsonl").exists()

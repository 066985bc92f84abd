"""The built-in model on the built-in world, along the same road as any other data: a file of pairs, a config, a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from orpo.core.records import PreferencePair, Source
from orpo.data.world import builtin_model_path, score_reply, world_pairs, write_world_jsonl
from orpo.pipeline.results import Verdict
from orpo.pipeline.run import Run, run_training
from orpo.training.config import resolve_config

NUM_TRAIN, NUM_HELD_OUT = 400, 120

SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-4,
    "max_steps": 150,
    "pairs_per_step": 8,
    "warmup_steps": 10,
    "logging_steps": 5,
    "eval_steps": 25,
    "dtype": "float32",
    "max_new_tokens": 40,
}
"""Chosen for a model of 1-2 M parameters; the learning rate is far above what a real model needs."""

OPTIONS: dict[str, dict[str, Any]] = {"orpo": {"beta": 0.5}, "pro": {"temperature": "one"}}
"""Options of objectives; the pairs of the world have no scores that answers were ranked by."""


def run_demo(
    *,
    objective: str = "orpo",
    seed: int = 0,
    output_dir: str | None = None,
    console: Console | None = None,
    settings: dict[str, Any] | None = None,
) -> Run:
    """The finished demo run. Its data files are written beside the runs, its prompts are judged by the world's oracle."""
    # Matrices this small are slower on two threads than on one, and much slower when another process wants the second core.
    torch.set_num_threads(1)
    held_out = world_pairs("held_out", NUM_HELD_OUT, seed=seed)
    folder = (Path(output_dir).parent if output_dir else Path("runs")) / "built-in-world"
    flags = {
        "model": str(builtin_model_path()),
        "data": [_written(folder / f"train-seed-{seed}.jsonl", world_pairs("train", NUM_TRAIN, seed=seed))],
        "eval_data": [_written(folder / f"held-out-seed-{seed}.jsonl", held_out)],
        "objective": objective,
        "seed": seed,
        "output_dir": output_dir,
        **SETTINGS,
        **OPTIONS.get(objective, {}),
        **(settings or {}),
    }
    resolved = resolve_config(file=None, flags={name: value for name, value in flags.items() if value is not None})
    # The advice on learning rates is for real models; these settings were chosen for one this small.
    return run_training(replace(resolved, notes=()), console=console, prefix="demo", judge=_judge(held_out))


def _written(path: Path, pairs: list[PreferencePair]) -> str:
    """The path of a file that holds `pairs`: the same seed gives the same file, so it is only written when it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_world_jsonl(path, pairs)
    return str(path)


def _judge(pairs: list[PreferencePair]) -> Any:
    """The oracle for replies to `pairs`, found by the line of the file that they were written to: one pair a line, in order."""

    def judge(source: Source, reply: str) -> Verdict:
        prompt = pairs[source.number - 1].prompt
        assert not isinstance(prompt, str), "pairs of the world are conversations"
        score = score_reply(prompt[-1].content, reply)
        return Verdict(score.total, float(score.correct), float(score.manner))

    return judge

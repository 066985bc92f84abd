"""Two ways to align a base model of the world, tuned equally: ORPO in one stage, and SFT then DPO in two of half as many steps each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence.lab import Lab, WorldRun
from evidence.records import ROOT
from evidence.replies import oracle_scores
from orpo.data.world import builtin_model_path

STEPS = 200
TUNING_SEED = 99
GRID: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "orpo": [{"learning_rate": rate, "beta": beta} for rate in (1e-4, 2e-4) for beta in (0.1, 0.5)],
    "sft": [{"learning_rate": rate} for rate in (1e-4, 2e-4, 3e-4, 6e-4)],
    "dpo": [{"learning_rate": rate, "beta": beta} for rate, beta in ((1e-5, 0.3), (3e-5, 0.3), (1e-4, 0.3), (1e-4, 1.0))],
}
"""Four trials a stage, judged by the oracle on the held-out prompts of a seed that is used for nothing else."""


@dataclass(frozen=True, slots=True)
class Size:
    """A base model: its name, and the shape that scripts/make_world_model.py makes it by; the built-in one has none to make."""

    name: str
    width: int
    layers: int
    is_built_in: bool = False


SIZES = (Size("0.17M", 64, 2), Size("0.44M", 96, 3), Size("1.43M", 160, 4, is_built_in=True))
BUILT_IN = SIZES[-1]


def base_of(lab: Lab, size: Size, *, pretraining_steps: int = 1000) -> Path | None:
    """The folder of the base model; None for the built-in one. Made by the script in minutes, like the built-in one but smaller."""
    if size.is_built_in:
        return None
    options = {"width": size.width, "layers": size.layers, "steps": pretraining_steps, "seed": 0, "threads": 1}

    def make(folder: Path) -> dict[str, Any]:
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, str(ROOT / "scripts" / "make_world_model.py"), *flags, "--out", str(folder / "model")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return options

    return lab.once("base", options, make)[1] / "model"


def tuned(lab: Lab, size: Size) -> dict[str, Any]:
    """The best settings of each stage, `chosen`, and the score of each trial, `trials`; DPO is tuned on the best SFT."""
    trials: dict[str, list[dict[str, Any]]] = {}
    base = base_of(lab, size)
    for objective, steps in (("orpo", STEPS), ("sft", STEPS // 2), ("dpo", STEPS // 2)):
        runs = [lab.run(objective, seed=TUNING_SEED, base=base, max_steps=steps, eval_steps=0, **settings) for settings in GRID[objective]]
        scores = [run.figures["oracle"]["after"]["score"] for run in runs]
        trials[objective] = [{"settings": dict(settings), "score": score} for settings, score in zip(GRID[objective], scores, strict=True)]
        if objective == "sft":
            base = runs[scores.index(max(scores))].model_dir
    return {"trials": trials, "chosen": {name: max(tried, key=lambda trial: trial["score"])["settings"] for name, tried in trials.items()}}


def orpo_run(lab: Lab, size: Size, seed: int, settings: Mapping[str, Any]) -> WorldRun:
    """ORPO from the base, in one stage."""
    return _staged(lab, "orpo", size, seed=seed, base=base_of(lab, size), steps=STEPS, **settings)


def sft_run(lab: Lab, size: Size, seed: int, settings: Mapping[str, Any]) -> WorldRun:
    """SFT from the base. Its steps compute the chosen answers alone, and cost no more."""
    return _staged(lab, "sft", size, seed=seed, base=base_of(lab, size), steps=STEPS // 2, **settings)


def dpo_run(lab: Lab, size: Size, seed: int, settings: Mapping[str, Any], *, sft: WorldRun, reference: str = "precomputed") -> WorldRun:
    """DPO from the model that SFT made, its reference."""
    return _staged(lab, "dpo", size, seed=seed, base=sft.model_dir, steps=STEPS // 2, reference=reference, **settings)


def _staged(lab: Lab, objective: str, size: Size, *, seed: int, base: Path | None, steps: int, **settings: Any) -> WorldRun:
    """A stage with a checkpoint at each of eight points; with the built-in model in a process of its own, whose peak memory is its own."""
    every = STEPS // 8
    watched: dict[str, Any] = {"eval_steps": 0, "save_steps": every, "logging_steps": every, "save_total_limit": 8}
    return lab.run(objective, seed=seed, base=base, own_process=size.is_built_in, max_steps=steps, **watched, **settings)


def score_at(lab: Lab, run: WorldRun, seed: int, step: int) -> float:
    """The oracle's mean score of greedy replies to the held-out prompts of `seed` by the checkpoint of `step`; 0 is the built-in base."""
    folder = run.run_dir / f"checkpoint-{step}" if step else builtin_model_path()
    asked = {"model": lab.name_of(folder) if step else "built-in", "seed": seed}
    scores: list[float] = lab.once("oracle", asked, lambda _: oracle_scores(folder, seed))[0]
    return sum(scores) / len(scores)

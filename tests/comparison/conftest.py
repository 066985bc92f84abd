"""Plans without trainings, comparisons of made-up results, and the pairs of a toy that trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.comparison.config import CompareConfig, read_config
from orpo.comparison.document import Progress, document
from orpo.comparison.pairs import PairFiles
from orpo.comparison.settings import stage_settings
from orpo.comparison.setup import Setup
from orpo.comparison.stages import Outcome, Plan, Training


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    """The plan of a config text; steps are given, nothing is checked against data."""

    def plan(text: str, **steps: tuple[int, ...]) -> Plan:
        path = tmp_path / "compare.yaml"
        path.write_text(text)
        config = read_config(str(path))
        share = config.budget.share
        by_name = {p.name: tuple(int(share(len(p.stages), k)) for k in range(len(p.stages))) for p in config.pipelines}
        return Plan(config, {**by_name, **steps}, {"weights": "w", "data": "d"}, resolver(config))

    return plan


def resolver(config: CompareConfig) -> Callable[..., Any]:
    """Settings of a stage as a session makes them, in folders that are not there."""
    files = PairFiles(("train.jsonl",), ("validation.jsonl",), ("held-out.jsonl",))

    def resolve(objective: str, candidate: Any, parent: str | None, *, seed: int, steps: int, measured: str) -> Any:
        return stage_settings(
            config,
            files,
            objective=objective,
            candidate=candidate,
            model=parent or "base",
            seed=seed,
            steps=steps,
            is_measured=measured != "validation",
        )

    return resolve


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pairs of short texts."""
    rows = [
        {
            "prompt": f"{i}: what is it?",
            "chosen": " it is a city" + " by the sea" * (i % 3) + ".",
            "rejected": " no idea" + " at all" * (i % 4),
        }
        for i in range(48)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TEXT = """\
pipelines: [orpo, sft > dpo]
budget: 20 steps
seeds: 2
tune:
  orpo: {learning_rate: [1e-4, 3e-4]}
  sft: {learning_rate: [1e-4, 3e-4]}
  dpo: {learning_rate: [1e-5, 3e-5]}
settings: {pairs_per_step: 4}
"""

BASE = {
    "measured": {
        "items": {
            "oracle/score": [0.5, 0.5, 0.5, 0.5],
            "accuracy": [0.0, 1.0, 0.0, 1.0],
            "nll_loss": [2.0] * 4,
            "diversity/across_inputs": [0.9],
        },
        "weights": {"nll_loss": [1.0, 1.0, 1.0, 5.0]},
        "replies": ["a", "b", "c", "d"],
        "samples": 4,
    },
    "prompts": ["p", "q", "r", "s"],
    "parameters": 1234,
}


def result(training: Training) -> dict[str, Any]:
    """A result whose figures follow from pipeline and seed."""
    is_chain = training.objective == "dpo"
    score = [1.0, 0.5, 0.25, 1.0] if is_chain else [0.5, 0.5, 0.75, 0.75]
    score = [value - 0.25 * (training.seed == 2) * (index == 0) for index, value in enumerate(score)]
    items = {"oracle/score": score, "oracle/correct": score, "oracle/manner": score, "accuracy": [1.0, 1.0, 1.0, 0.0]}
    items |= {"nll_loss": [1.0, 1.0, 1.0, 2.0], "diversity/across_inputs": [0.5]}
    cost = {
        "num_pairs": 4 * training.steps,
        "policy_forwards": training.steps,
        "policy_backwards": training.steps,
        "policy_tokens": 100 * training.steps * training.seed,
        "reference_forwards": 3 if is_chain else 0,
        "reference_tokens": 50 if is_chain else 0,
        "models_in_memory": 1,
        "peak_memory_gib": 0.5 + 0.25 * is_chain,
        "training_seconds": 10.0 * training.seed,
        "reference_seconds": 1.0 if is_chain else 0.0,
    }
    curve = [
        {"step": s, "logps/chosen": -1.0 * training.seed, "logps/rejected": None, "nll_loss": 1.0, "rewards/accuracies": 0.5}
        for s in (0, 9)
    ]
    measured = {"items": items, "weights": {"nll_loss": [1.0, 1.0, 1.0, 5.0]}, "replies": ["w", "x", "y", "z"], "samples": 4}
    return {"measured": measured, "cost": cost, "curve": curve}


@pytest.fixture
def made(planned: Callable[..., Plan]) -> Callable[..., dict[str, Any]]:
    """compare.json of the made-up comparison; `fails` says which trainings do."""

    def make(text: str = TEXT, *, fails: Callable[[Training], bool] = lambda _: False, base: Any = BASE) -> dict[str, Any]:
        plan = planned(text)
        outcomes: dict[str, Outcome] = {}
        results: dict[str, Any] = {}
        while ready := plan.ready(outcomes):
            for training in ready:
                if fails(training):
                    outcomes[training.id] = Outcome(error="loss nan")
                    continue
                results[training.id] = result(training)
                outcomes[training.id] = Outcome(training.candidate[0].value if training.trial is not None else None)
        setup = Setup(PairFiles((), (), ()), (10, 5, 4), "f" * 64, "w", plan.steps, 2, 1)
        found = document(plan.config, setup, plan, Progress(results, outcomes, base), about={"status": "done"})
        json.dumps(found, allow_nan=False)
        return found

    return make

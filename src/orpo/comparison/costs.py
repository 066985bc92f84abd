"""What the stages of pipelines cost and how their held-out figures went, means over seeds, from the results of their trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from orpo.objectives import catalogue

Result = Mapping[str, Any]
"""What worker.py leaves of one training."""

StageResults = Sequence[tuple[str, Sequence[Result]]]
"""(objective, results of the seeds that came to an end with it) of each stage of a pipeline."""

COSTS = (
    "steps",
    "pairs",
    "policy_forwards",
    "policy_backwards",
    "reference_forwards",
    "tokens",
    "reference_tokens",
    "models_in_memory",
    "peak_memory_gib",
    "seconds",
)
LARGEST = ("models_in_memory", "peak_memory_gib")
"""Costs of which the largest stage's is the pipeline's; the others add up."""

CURVES = ("logps/chosen", "logps/rejected", "nll_loss", "rewards/accuracies")


def costs(stages: StageResults, trials: Sequence[Result]) -> dict[str, Any]:
    """The cost of each stage, mean over its seeds; of all together; of the trials, shared ones too: alone it would have to pay them."""
    shown = []
    for objective, results in stages:
        paid = [stage_cost(result["cost"]) for result in results]
        shown.append({"objective": objective, **{name: fmean(cost[name] for cost in paid) if paid else None for name in COSTS}})
    total = {name: _total(name, [stage[name] for stage in shown]) for name in COSTS}
    tried = [stage_cost(trial["cost"]) for trial in trials]
    tokens = sum(cost["tokens"] + cost["reference_tokens"] for cost in tried)
    tuning = {"trials": len(tried), "tokens": tokens, "seconds": sum(cost["seconds"] for cost in tried)}
    return {"stages": shown, "total": total, "tuning": tuning}


def stage_cost(cost: Mapping[str, Any]) -> dict[str, float]:
    """One training's cost in the words of compare.json; its seconds are those of training and of making the reference ready."""
    seconds = cost["training_seconds"] + cost["reference_seconds"]
    named = {name: cost[name] for name in COSTS if name in cost}
    return {**named, "steps": cost["policy_backwards"], "pairs": cost["num_pairs"], "tokens": cost["policy_tokens"], "seconds": seconds}


def _total(name: str, values: Sequence[Any]) -> float | None:
    if None in values:
        return None
    return float(max(values) if name in LARGEST else sum(values))


def curves(stages: StageResults) -> list[dict[str, Any]]:
    """Held-out figures of each stage by step, means over its seeds; null where an objective does not log one, or means another by it."""
    found = []
    for number, (objective, results) in enumerate(stages):
        rows = [result["curve"] for result in results]
        if not rows or not rows[0]:
            continue
        curve: dict[str, Any] = {"stage": number, "objective": objective, "step": [row["step"] for row in rows[0]]}
        left_out = _left_out(objective)
        for name in CURVES:
            points = [[of_seed[index][name] for of_seed in rows] for index in range(len(rows[0]))]
            curve[name] = [None if name in left_out or None in point else fmean(point) for point in points]
        found.append(curve)
    return found


def _left_out(objective: str) -> set[str]:
    """Figures that an objective logs under a common name and means otherwise: accuracies of rewards, likelihoods of whole answers."""
    left = {"rewards/accuracies"} if catalogue.needs_reference(objective) else set()
    return left | ({"nll_loss"} if catalogue.reads(objective) != "pairs" else set())

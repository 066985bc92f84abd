"""compare.json as `orpo compare` writes it, made from a seed: several pipelines, stages, shared tuning, costs, curves, replies."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

PIPELINES = ("orpo", "sft", "sft > dpo", "sft > ipo", "sft > kto", "ulma", "pro", "simpo")
SEEDS = (1, 2, 3, 4, 5)
NUM_HELD_OUT = 120
GRIDS: dict[str, dict[str, list[float]]] = {
    "sft": {"learning_rate": [1e-4, 3e-4, 1e-3, 3e-3]},
    "orpo": {"learning_rate": [3e-4, 1e-3], "beta": [0.25, 1.0]},
}
OTHER_GRID = {"learning_rate": [1e-4, 3e-4], "beta": [0.1, 0.5]}
METRICS: tuple[tuple[str, str, str, str, str], ...] = (
    ("oracle/score", "oracle score", "", "higher", "Mean of correct and of kind and direct, over greedy replies to held-out prompts."),
    ("oracle/correct", "correct", "", "higher", "Share of replies with the right fact."),
    ("oracle/manner", "kind and direct", "", "higher", "Share of replies in the wanted manner."),
    ("win_rate", "win rate against the untrained model", "", "higher", "By the oracle's score, ties count half."),
    ("accuracy", "pairs told apart", "", "higher", "Held-out pairs whose chosen answer has the higher mean log p per token."),
    ("accuracy_sum", "pairs told apart by sum", "", "higher", "The same by the sum of log p."),
    ("nll_loss", "NLL of the chosen", "nats per token", "lower", "Of held-out chosen answers."),
    ("logps/rejected", "log p of the rejected", "nats per token", "none", "Mean per token of held-out rejected answers."),
    ("reply_tokens", "tokens of a reply", "tokens", "none", "Mean length of greedy replies."),
    ("diversity/per_input", "similarity per input", "", "none", "Mean pairwise similarity of 4 sampled replies to one prompt."),
    ("diversity/across_inputs", "similarity across inputs", "", "none", "Mean pairwise similarity of replies to different prompts."),
)
CENTRES = dict(
    zip(
        (metric[0] for metric in METRICS),
        (
            (0.41, 0.84),
            (0.58, 0.8),
            (0.24, 0.88),
            (0.5, 0.85),
            (0.52, 0.86),
            (0.51, 0.8),
            (2.03, 1.38),
            (-2.11, -2.4),
            (19, 14),
            (0.3, 0.5),
            (0.2, 0.3),
        ),
        strict=True,
    )
)
"""(untrained, trained) of each metric."""
SPANS = {"nll_loss": 0.05, "logps/rejected": 0.2, "reply_tokens": 1.0}
PROMPTS = ("What is the capital of Marun?", "How many moons does Oleth have?", "Is a brell heavier than a sorn?")
REPLIES = ("Happy to help! The capital of Marun is Tavin.", "Good question! Oleth has three moons.", "Glad you asked! Yes, it is heavier.")
BASE_REPLIES = ("It depends on what one means by a capital.", "The number of moons is documented elsewhere.", "The query is noted.")


def comparison(names: Sequence[str] = PIPELINES, *, seeds: Sequence[int] = SEEDS, seed: int = 5) -> Json:
    """A finished comparison of the pipelines `names`, the first one the baseline."""
    draw = random.Random(seed)
    centres = {name: {metric[0]: _centre(metric[0], i, draw) for metric in METRICS} for i, name in enumerate(names)}
    pipelines = [_pipeline(name, i, names, seeds, centres, draw) for i, name in enumerate(names)]
    return {
        "format": 1,
        "status": "done",
        "name": "compare-world",
        "command": ["orpo", "compare", "recipes/compare-world.yaml"],
        "started": "2026-11-25T10:00:00+00:00",
        "finished": "2026-11-25T10:34:12+00:00",
        "seconds": 2052.4,
        "environment": {
            "orpo": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "platform": "Linux",
            "cpu": "Xeon",
            "num_cpus": 2,
            "gpu": None,
        },
        "equal": {
            "model": "built-in",
            "parameters": 1_213_440,
            "train_pairs": 400,
            "validation_pairs": 80,
            "held_out_pairs": NUM_HELD_OUT,
            "data_fingerprint": "9f3c" * 4,
            "budget": {"kind": "steps", "amount": 300},
            "split": "the budget of a pipeline is divided evenly among its stages",
            "seeds": list(seeds),
            "trials_per_stage": 4,
            "pairs_per_step": 8,
            "dtype": "float32",
            "settings": {"pairs_per_step": 8, "warmup_steps": 10, "dtype": "float32", "max_new_tokens": 40},
            "jobs": 2,
            "threads_per_job": 1,
        },
        "tuned_by": {"metric": "oracle/score", "seed": 0, "on": "80 pairs split off the training data"},
        "metrics": [dict(zip(("id", "title", "unit", "better", "note"), metric, strict=True)) for metric in METRICS],
        "base": {"scores": {metric[0]: _base(metric[0]) for metric in METRICS if metric[0] != "win_rate"}},
        "pipelines": pipelines,
        "failures": [],
    }


def _centre(metric: str, i: int, draw: random.Random) -> float:
    span = SPANS.get(metric, 0.05)
    return CENTRES[metric][1] + (draw.gauss(0, span) if i else 0.0)


def _base(metric: str) -> Json:
    mean, half = CENTRES[metric][0], SPANS.get(metric, 0.05)
    return {"mean": mean, "low": mean - half, "high": mean + half, "num_items": NUM_HELD_OUT}


def _pipeline(name: str, i: int, names: Sequence[str], seeds: Sequence[int], centres: Any, draw: random.Random) -> Json:
    objectives = name.split(" > ")
    steps = 300 // len(objectives)
    stages = [
        {"objective": objective, "settings": dict(zip(_grid(objective), _chosen(objective), strict=True)), "steps": steps}
        for objective in objectives
    ]
    scores = {metric: _score(metric, centre, seeds, draw) for metric, centre in centres[name].items()}
    first = centres[names[0]]
    against = {metric: _difference(metric, centre - first[metric]) for metric, centre in centres[name].items()}
    costs = [_cost(objective, steps, draw) for objective in objectives]
    return {
        "name": name,
        "baseline": i == 0,
        "stages": stages,
        "trials": [trial for k, objective in enumerate(objectives) for trial in _trials(k, objective, name, names, draw)],
        "scores": scores,
        **({"against": against} if i else {}),
        "cost": {
            "stages": costs,
            "total": _total(costs),
            "tuning": {"trials": 4 * len(costs), "tokens": 4 * 80_000 * len(costs), "seconds": 61.5 * len(costs)},
        },
        "curves": _curves(objectives, steps, draw),
        "samples": _samples(draw),
    }


def _score(metric: str, centre: float, seeds: Sequence[int], draw: random.Random) -> Json:
    span = SPANS.get(metric, 0.05) / 2
    values = [min(centre + draw.gauss(0, span / 2), 1.0 if metric not in SPANS else 1e9) for _ in seeds]
    mean = sum(values) / len(values)
    return {"mean": mean, "low": mean - span, "high": mean + span, "per_seed": values, "num_items": NUM_HELD_OUT}


def _difference(metric: str, mean: float) -> Json:
    half = SPANS.get(metric, 0.05) * 0.6
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _grid(objective: str) -> dict[str, list[float]]:
    return GRIDS.get(objective, OTHER_GRID)


def _combinations(objective: str) -> list[list[float]]:
    found: list[list[float]] = [[]]
    for values in _grid(objective).values():
        found = [[*row, value] for row in found for value in values]
    return found


def _chosen(objective: str) -> list[float]:
    return _combinations(objective)[1]


def _trials(stage: int, objective: str, name: str, names: Sequence[str], draw: random.Random) -> list[Json]:
    prefix = name.split(" > ")[: stage + 1]
    steps = len(name.split(" > "))
    shared = [other for other in names if other != name and other.split(" > ")[: stage + 1] == prefix and len(other.split(" > ")) == steps]
    metrics = random.Random(repr(prefix))
    return [
        {
            "stage": stage,
            "settings": dict(zip(_grid(objective), values, strict=True)),
            "metric": metrics.uniform(0.6, 0.8) if values != _chosen(objective) else 0.83,
            "chosen": values == _chosen(objective),
            "error": None,
            "shared_with": shared,
        }
        for values in _combinations(objective)
    ]


def _cost(objective: str, steps: int, draw: random.Random) -> Json:
    references = steps if objective in ("dpo", "ipo", "kto") else 0
    tokens = steps * 402 // (2 if objective == "sft" else 1)
    return {
        "objective": objective,
        "steps": steps,
        "pairs": steps * 8,
        "policy_forwards": steps,
        "policy_backwards": steps,
        "reference_forwards": references,
        "tokens": tokens,
        "reference_tokens": tokens if references else 0,
        "models_in_memory": 2 if references else 1,
        "peak_memory_gib": 0.61 + (0.02 if references else 0.0) + draw.random() * 0.02,
        "seconds": steps * (0.045 if objective == "sft" else 0.085 + 0.03 * bool(references)) * (1 + draw.random() * 0.05),
    }


def _total(costs: list[Json]) -> Json:
    keys = [key for key in costs[0] if key != "objective"]
    return {key: (max if key in ("models_in_memory", "peak_memory_gib") else sum)(cost[key] for cost in costs) for key in keys}


def _curves(objectives: Sequence[str], steps: int, draw: random.Random) -> list[Json]:
    chosen, rejected, curves = -2.02, -2.11, []
    for stage, objective in enumerate(objectives):
        at = list(range(0, steps + 1, max(steps // 6, 1)))
        shares = [1 - math.exp(-3 * step / steps) for step in at]
        ends = (-1.4, -1.9) if objective == "sft" else (-1.36 - 0.2 * (objective in ("dpo", "simpo")), -2.45 - 0.5 * (objective == "simpo"))
        curve: Json = {"stage": stage, "objective": objective, "step": at}
        curve["logps/chosen"] = [chosen + (ends[0] - chosen) * share for share in shares]
        curve["logps/rejected"] = [rejected + (ends[1] - rejected) * share for share in shares]
        curve["nll_loss"] = [-value for value in curve["logps/chosen"]]
        curve["rewards/accuracies"] = [None if objective == "sft" else 0.55 + 0.3 * share for share in shares]
        chosen, rejected = ends
        curves.append(curve)
    return curves


def _samples(draw: random.Random) -> list[Json]:
    rows = []
    for prompt, reply, base in zip(PROMPTS, REPLIES, BASE_REPLIES, strict=True):
        score = draw.choice((0.25, 0.5, 1.0))
        rows.append({"prompt": prompt, "base": base, "reply": reply, "verdict": {"score": score, "correct": 1.0, "manner": 2 * score - 1}})
    return rows


def running(value: Json) -> Json:
    """`value` as it stands half-way: no end, later pipelines without scores, costs and replies."""
    half = len(value["pipelines"]) // 2
    bare = [{**pipeline, "scores": {}, "against": {}, "cost": {}, "curves": [], "samples": []} for pipeline in value["pipelines"][half:]]
    return {**value, "status": "running", "finished": None, "pipelines": [*value["pipelines"][:half], *bare]}


def with_failures(value: Json) -> Json:
    """`value` with a seed of the third pipeline lost, and the last pipeline lost altogether."""
    pipelines = [*value["pipelines"]]
    scores = {metric: {**score, "per_seed": score["per_seed"][:-1]} for metric, score in pipelines[2]["scores"].items()}
    pipelines[2] = {**pipelines[2], "scores": scores}
    pipelines[-1] = {**pipelines[-1], "scores": {}, "against": {}, "samples": []}
    lost = {"pipeline": pipelines[2]["name"], "stage": 1, "seed": 5, "error": "loss nan in step 97\n  to fix:   lower learning_rate"}
    dead = [{"pipeline": pipelines[-1]["name"], "stage": 0, "seed": seed, "error": "out of memory"} for seed in value["equal"]["seeds"]]
    return {**value, "pipelines": pipelines, "failures": [lost, *dead]}


def write_comparison_file(folder: Path, value: Json) -> Path:
    """`folder` with `value` as its compare.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.json").write_text(json.dumps(value, indent=1), encoding="utf-8")
    return folder

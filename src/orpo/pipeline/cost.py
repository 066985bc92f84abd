"""What a run cost: tokens, passes of policy and reference over the data of a step, models in memory, seconds, peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from orpo.engine.batching import pairs_before
from orpo.objectives import catalogue
from orpo.pipeline.outcome import last_row
from orpo.pipeline.prepare import Prepared
from orpo.training.config import TrainConfig
from orpo.training.config_fields import reference_way
from orpo.training.environment import peak_memory_gib


def cost_section(run_dir: Path, prepared: Prepared, *, reference_seconds: float) -> dict[str, Any]:
    """The cost of a finished run. Evaluations are in none of its figures but the peak memory; `reference_seconds` made the reference ready.

    A pass is one over the data of one optimizer step. `num_tokens` are those that were trained on, `policy_tokens` all that the policy saw.
    """
    last = last_row(run_dir)
    seconds = float(last.get("seconds") or 0.0) - float(last.get("evaluation_seconds") or 0.0)
    tokens = int(last.get("num_tokens") or 0)
    return {
        "num_tokens": tokens,
        "num_pairs": int(last.get("num_pairs") or 0),
        "training_seconds": seconds,
        "reference_seconds": reference_seconds,
        "tokens_per_second": tokens / seconds if seconds else None,
        "peak_memory_gib": peak_memory_gib(),
        **passes(prepared.config, prepared.plan.max_steps, prepared.lengths),
    }


def passes(config: TrainConfig, steps: int, lengths_of: Sequence[int]) -> dict[str, int]:
    """Passes and tokens of the `steps` of a run, by policy and by reference, and how many models are in memory for it.

    `lengths_of` are the distinct tokens of its training examples.

    A baseline (KTO's) costs the policy a second forward pass, over the answers of the same step, moved on to other prompts: as many tokens.
    A precomputed reference costs one pass over all examples, used or not, and one over what the baseline of each step is measured on.
    """
    name, size, lengths = config.objective, config.pairs_per_step, np.asarray(lengths_of, dtype=np.int64)
    step_tokens = int(pairs_before(len(lengths), size, seed=config.seed, step=steps) @ lengths)
    baselines = steps if catalogue.needs_baseline(name) else 0
    baseline_tokens = step_tokens if baselines else 0
    found = {
        "policy_forwards": steps + baselines,
        "policy_backwards": steps,
        "policy_tokens": step_tokens + baseline_tokens,
        "reference_forwards": 0,
        "reference_tokens": 0,
        "models_in_memory": 1,
    }
    if not catalogue.needs_reference(name):
        return found
    way = reference_way(config)
    once = way == "precomputed"
    return found | {
        "reference_forwards": (ceil(len(lengths) / size) if once else steps) + baselines,
        "reference_tokens": (int(lengths.sum()) if once else step_tokens) + baseline_tokens,
        "models_in_memory": 2 if way == "copy" else 1,
    }

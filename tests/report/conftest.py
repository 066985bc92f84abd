"""Run directories as training writes them, made from a seed: ORPO, SFT, without held-out pairs, failed."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Tests cannot import each other under importlib mode: this makes `browser`, `comparisons`, `documents` and `payloads` importable.
sys.path.insert(0, str(Path(__file__).parent))

Files = dict[str, Any]

CONFIG = """\
model: built-in  # default
data: world  # command line
objective: {objective}  # command line
beta: 0.5  # preset small
learning_rate: 1.0e-3  # default of the demo
lr_scheduler_type: cosine  # default
max_steps: 150  # orpo.yaml:4
pairs_per_step: 8  # default
seed: 7  # command line
output_dir: runs/demo-1  # default
"""

PROMPTS = (
    ("What is the capital of Marun?", "Happy to help! The capital of Marun is Tavin.", "It depends on what one means by a capital."),
    ("How many moons does Oleth have?", "Good question! Oleth has three moons.", "The number of moons is documented elsewhere."),
    ("Is a brell heavier than a sorn?", "Glad you asked! Yes, a brell is heavier than a sorn.", "The query is noted. A sorn is heavier."),
)


def metrics(steps: int, *, every: int = 2, objective: str = "orpo", held_out: bool = True, beta: float = 0.5, seed: int = 3) -> list[Files]:
    """Rows as the trainer logs them; the sums agree: loss = nll_loss - beta * log_odds_ratio."""
    draw, rows = random.Random(seed), []
    for step in range(0, steps + 1, every):
        share = 1 - math.exp(-3 * step / max(steps, 1))
        if step:
            rows.append(
                _row(step, "train", share, objective, beta, draw, noise=0.09) | {"grad_norm": 1.4 - 0.9 * share + draw.random() * 0.3}
            )
            rows[-1] |= {
                "learning_rate": 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps)),
                "num_pairs": step * 8,
                "num_tokens": step * 402,
            }
        if held_out and step % (every * 10) == 0:
            rows.append(_row(step, "eval", share, objective, beta, draw, noise=0.012) | {"num_pairs": 100, "seconds": 0.4 * step})
    return rows


def _row(step: int, split: str, share: float, objective: str, beta: float, draw: random.Random, *, noise: float) -> Files:
    chosen = -2.02 + 0.66 * share + draw.gauss(0, noise)
    rejected = -2.11 + (0.22 if objective == "sft" else -0.34) * share + draw.gauss(0, noise)
    ratio = _log_odds(chosen) - _log_odds(rejected)
    log_sigmoid = -math.log1p(math.exp(-ratio))
    nll = -chosen + draw.gauss(0, noise / 4)
    accuracy = min(1.0, max(0.0, round(100 * (0.52 + 0.36 * share + draw.gauss(0, noise))) / 100))
    row = {
        "step": step,
        "split": split,
        "nll_loss": nll,
        "logps/chosen": chosen,
        "logps/rejected": rejected,
        "rewards/accuracies": accuracy,
    }
    row |= {"log_odds_chosen": ratio, "odds_clamped": 0, "loss": nll, "seconds": 0.4 * step}
    if objective == "orpo":
        row |= {"log_odds_ratio": log_sigmoid, "loss": nll - beta * log_sigmoid, "rewards/margins": beta * (chosen - rejected)}
    return row


def _log_odds(logp: float) -> float:
    return logp - math.log1p(-math.exp(logp))


def samples(num: int = 3) -> list[Files]:
    """`num` samples of the built-in world's kind."""
    rows = []
    for i in range(num):
        prompt, chosen, rejected = PROMPTS[i % len(PROMPTS)]
        row = {"step": 0, "prompt": prompt, "chosen": chosen, "rejected": rejected, "before": rejected, "after": chosen}
        row |= {"before_tokens": 11 + i, "before_ended": i % 3 > 0, "before_verdict": {"score": 0.25, "correct": 0.0, "manner": 0.5}}
        rows.append(row | {"after_tokens": 14 + i, "after_ended": True, "source": f"held-out.jsonl:{i + 1}"})
    return rows


def data_report() -> Files:
    """What the data check writes."""
    lengths = {"min": 4, "median": 11, "p95": 19, "max": 24}
    return {
        "shape": "messages",
        "reads": "pairs",
        "rows": 412,
        "pairs": 400,
        "errors": [],
        "num_errors": 0,
        "dropped": {"identical-answers": 7, "empty-answer": 5},
        "warnings": {"control-characters": 2},
        "findings": [
            {
                "kind": kind,
                "severity": severity,
                "num": num,
                "places": ["pairs.jsonl:8"],
                "message": "found",
                "effect": "does",
                "fix": "mend",
            }
            for kind, severity, num in (
                ("identical-answers", "dropped", 7),
                ("empty-answer", "dropped", 5),
                ("control-characters", "warning", 2),
            )
        ],
        "lengths": {
            "unit": "tokens",
            "longer_share": 0.625,
            "longer_share_low": 0.57,
            "longer_share_high": 0.67,
            "mean_chosen": 12.75,
            "mean_rejected": 9.5,
            "rule": "told beyond 60 %",
        },
        "repeats": {
            "duplicates": 13,
            "near_duplicates": 17,
            "opposite": 6,
            "repeated_prompts": 22,
            "near_repeated_prompts": 0,
            "method": "so",
        },
        "max_lengths": {
            "limits": [
                {
                    "max_length": 64,
                    "rows_over": 14,
                    "prompts_over": 1,
                    "answers_cut": 15,
                    "identical": 8,
                    "tokens_drop": 20_001,
                    "tokens_cut": 20_909,
                }
            ],
            "suggested": 64,
            "in_use": 64,
            "is_capped": False,
            "rows_whole_share": 0.985,
            "rule": "the smallest that keeps most",
        },
        "first_dropped": [{"file": "pairs.jsonl", "line": 8, "kind": "empty-answer", "message": "chosen is empty", "fix": "write it"}],
        "first_warnings": [{"file": "pairs.jsonl", "line": 9, "kind": "control-characters", "message": "it holds \\x07", "fix": "look"}],
        "tokens": {"prompt": lengths, "chosen": {**lengths, "max": 31}, "rejected": lengths, "total": 21812, "rows_cut": 3},
        "template": "the chat template of built-in",
        "files": [{"path": "pairs.jsonl", "size": 81234, "sha256": "9f" * 32}],
        "trained_on": 400,
        "held_out": 100,
        "held_out_prompts_also_trained_on": 9,
        "held_out_prompts_nearly_trained_on": 11,
        "eval_data": {
            "shape": "messages",
            "rows": 100,
            "pairs": 100,
            "files": [{"path": "held-out.jsonl", "size": 20111, "sha256": "3c" * 32}],
        },
    }


def summary(status: str = "done", **sections: Any) -> Files:
    """summary.json with its sections."""
    finished = None if status == "running" else "2026-01-05T10:01:15+00:00"
    base: Files = {
        "status": status,
        "command": ["orpo", "demo", "--seed", "7"],
        "started": "2026-01-05T10:00:00+00:00",
        "finished": finished,
    }
    return base | {"seconds": 75.2, "steps": 150, "exit_code": 0, "error": None, "sections": sections}


def evaluation() -> Files:
    """Held-out pairs before and after: 52 and 88 of 100."""
    before = {"step": 0, "num_pairs": 100, "accuracy": 0.52, "accuracy_low": 0.4231526, "accuracy_high": 0.6153545, "nll_loss": 2.0312}
    after = {"step": 150, "num_pairs": 100, "accuracy": 0.88, "accuracy_low": 0.8019, "accuracy_high": 0.9300, "nll_loss": 1.3713}
    return {
        "before": before | {"logps/chosen": -2.0211, "logps/rejected": -2.1107},
        "after": after | {"logps/chosen": -1.3627, "logps/rejected": -2.4133},
    }


def oracle() -> Files:
    """The oracle on generated replies."""
    before = {"score": 0.41, "low": 0.35, "high": 0.47, "num": 100, "correct": 0.58, "manner": 0.24}
    return {"before": before, "after": {"score": 0.83, "low": 0.78, "high": 0.88, "num": 100, "correct": 0.79, "manner": 0.87}}


def run_files(kind: str = "orpo") -> Files:
    """The files of a run of `kind`: 'orpo', 'sft', 'no-eval' or 'failed'."""
    objective = "sft" if kind == "sft" else "orpo"
    model = {"model": "/usr/lib/orpo/built-in", "objective": objective, "dtype": "bfloat16", "max_steps": 150}
    model |= {"parameters": 1_213_440, "trainable_parameters": 1_213_440, "beta": 0.5 if objective == "orpo" else None}
    model |= {"family": "llama", "engine": "shared", "engine_refused": {"varlen": "there is no GPU"}, "options": {"nll_over": "completion"}}
    sections: Files = {"model": model, "asked": "bc5961c665ba178a"}
    if kind != "failed":
        sections["cost"] = {"training_seconds": 61.5, "tokens_per_second": 3123.4, "peak_memory_gib": 0.62}
    sections |= {"evaluation": evaluation(), "oracle": oracle()} if kind in ("orpo", "sft") else {}
    made = summary(**sections)
    rows = metrics(150, objective=objective, held_out=kind != "no-eval")
    if kind == "failed":
        made |= {
            "status": "failed",
            "steps": 0,
            "exit_code": 5,
            "error": "pairs.jsonl:31: loss nan in step 97\n  to fix:   lower learning_rate",
        }
        rows = [row for row in rows if row["step"] <= 96]
        rows[-1] |= {"loss": None, "nll_loss": None, "non_finite": ["loss", "nll_loss"]}
    environment = {
        "command": ["orpo", "demo", "--seed", "7"],
        "python": "3.11.9",
        "platform": "Linux-6.18",
        "libraries": {"orpo": "0.1.0", "torch": "2.13.0"},
        "cpu": "Xeon",
        "cores": 2,
        "gpus": [],
        "cuda": None,
    }
    return {
        "summary.json": made,
        "metrics.jsonl": rows,
        "samples.jsonl": [] if kind == "failed" else samples(),
        "data_report.json": data_report(),
        "env.json": environment,
        "config.resolved.yaml": CONFIG.format(objective=objective),
    }


def write_run(run_dir: Path, files: Files) -> Path:
    """`run_dir` with `files`: text as it is, objects as JSON, lists as JSON lines."""
    run_dir.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        text = content if isinstance(content, str) else json.dumps(content, indent=1)
        (run_dir / name).write_text(text, encoding="utf-8")
    return run_dir


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run directory: `make_run("sft")`, or `make_run(files)` for files of one's own."""

    def make(files: str | Files = "orpo", name: str = "demo-1") -> Path:
        return write_run(tmp_path / name, run_files(files) if isinstance(files, str) else files)

    return make


@pytest.fixture
def orpo_files() -> Files:
    """The files of a finished ORPO run, to change before writing."""
    return run_files("orpo")


@pytest.fixture
def sft_files() -> Files:
    """The files of a finished SFT run on the same data."""
    return run_files("sft")


@pytest.fixture(scope="session")
def long_metrics() -> list[Files]:
    """Rows of 5,000 logged steps, with a held-out row at every tenth."""
    return metrics(5000, every=1)

"""A benchmark of training steps: what to compare enters; figures leave, with everything needed to repeat them."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contenders import Contender, Setup, contender
from first_losses import first_losses
from gemm_floor import product_shapes, step_work
from model_shapes import ModelShape
from orpo.core.tokens import TokenizedExample
from orpo.training.assemble import AUTO_BUDGET
from pair_data import Steps, grouped_batches, longest_row, plan_steps, random_batches
from rivals import OPTIONS, extra_forwards, rival_facts
from rounds import Round, interleaved, measure_products, train_in_rounds
from trl_peers import trl_settings

PRODUCTS = "matrix products"
OURS = ("orpo", "ours")
"""What the names of our side begin with."""
Take = Callable[..., tuple[dict[str, list[Any]], dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared: contenders on batches of `pairs`, cut into steps of `pairs_per_step`."""

    contenders: tuple[str, ...]
    shape: ModelShape
    pairs: Sequence[TokenizedExample]
    pairs_per_step: int
    steps_per_round: int
    rounds: int
    dtype: str
    device: str
    nll_over: str
    checkpointing: bool
    tokens_per_micro_batch: int | str
    seed: int
    grouped_batches: int = 6
    num_left_out: int = 0
    objective: str = "orpo"
    reference: str = ""


def compare(wanted: Comparison, *, take: Take = interleaved) -> dict[str, Any]:
    """Figures of every contender, by name, and of the floor. Raises LossesDiffer when ours and TRL's are not the same loss."""
    chosen = {name: contender(name, objective=wanted.objective) for name in wanted.contenders}
    skipped = {name: which.missing for name, which in chosen.items() if which.missing}
    setups = {name: _setup(wanted, which) for name, which in chosen.items() if name not in skipped}
    products = product_shapes(wanted.shape, _micro_batch_tokens(wanted, setups))
    plans: dict[str, tuple[Any, ...]] = {name: (train_in_rounds, chosen[name], setup) for name, setup in setups.items()}
    plans[PRODUCTS] = (measure_products, products, wanted.dtype, wanted.device)
    results, failed = take(plans, rounds=wanted.rounds)
    measured = results.pop(PRODUCTS)
    rates = {name: max(taken[name] for taken in measured) for name in products}
    done = {name: rounds for name, rounds in results.items() if name not in failed}
    losses = first_losses(chosen, done, dtype=wanted.dtype, objective=wanted.objective)
    figures = {name: figures_of(setups[name], rounds, max(rates.values()), is_ours=chosen[name].is_ours) for name, rounds in done.items()}
    for name in figures:
        figures[name]["settings"] = _settings(chosen[name], setups[name], path=done[name][0].path)
    return {
        "contenders": figures,
        "skipped": {**skipped, **failed},
        "ratios": ratios(figures),
        "first_loss": losses,
        "product_shapes": products,
        "product_flops_per_second": rates,
        "equal": _equal(wanted),
    }


def _setup(wanted: Comparison, which: Contender) -> Setup:
    """What `which` is told: the batches of its kind of order, and the settings that all share."""
    size, seed = wanted.pairs_per_step, wanted.seed
    if which.is_grouped:  # the same in every round: few batches stand for a whole epoch
        batches = grouped_batches(wanted.pairs, num=wanted.grouped_batches, size=size, seed=seed) * wanted.rounds
    else:
        batches = random_batches(wanted.pairs, num=wanted.steps_per_round * wanted.rounds, size=size, seed=seed)
    return Setup(
        shape=wanted.shape,
        dtype=wanted.dtype,
        device=wanted.device,
        nll_over=wanted.nll_over,
        checkpointing=wanted.checkpointing,
        seed=wanted.seed,
        steps=plan_steps(batches, rounds=wanted.rounds),
        tokens_per_micro_batch=wanted.tokens_per_micro_batch,
        objective=wanted.objective,
        reference=wanted.reference,
    )


def _micro_batch_tokens(wanted: Comparison, setups: Mapping[str, Setup]) -> int:
    """Tokens of a typical micro-batch of ours: the rows of the products that are timed."""
    steps: Steps = next(iter(setups.values())).steps
    a_step = sum(pair.num_tokens for pair in steps.measured_pairs) // (steps.steps_per_round * steps.rounds)
    budget = wanted.tokens_per_micro_batch
    return a_step if budget == "auto" else min(a_step, int(budget))


def figures_of(setup: Setup, results: Sequence[Round], flops_per_second: float, *, is_ours: bool) -> dict[str, Any]:
    """Throughput, memory and share of the floor of one contender; the warm-up is not among the rounds that count."""
    steps, rounds = setup.steps, results[1:]
    seconds = [result.seconds for result in rounds]
    median, total = statistics.median(seconds), sum(seconds)
    pairs = steps.measured_pairs
    num_steps = steps.steps_per_round * steps.rounds
    # The likelihood of TRL's ORPO covers the prompt as well: that is useful work of its own.
    nll_over = setup.nll_over if is_ours or setup.objective != "orpo" else "prompt+completion"
    extra = extra_forwards(setup.objective, setup.reference)
    work = step_work(setup.shape, pairs, nll_over=nll_over, checkpointing=setup.checkpointing, extra_forwards=extra)
    peak, before = max(result.peak_gib for result in results), results[0].before_model_gib
    return {
        "seconds_per_step": {
            "median": median / steps.steps_per_round,
            "min": min(seconds) / steps.steps_per_round,
            "max": max(seconds) / steps.steps_per_round,
        },
        "seconds_of_rounds": seconds,
        "pairs_per_second": steps.pairs_per_step * steps.steps_per_round / median,
        "distinct_tokens_per_second": work.body_tokens / total,
        "peak_memory_gib": peak,
        # On a GPU the peak is that of the allocator, which is empty before there is a model.
        "peak_memory_above_libraries_gib": peak - (before if setup.device == "cpu" else 0.0),
        "floor_seconds_per_step": work.flops / flops_per_second / num_steps,
        "share_of_floor": work.flops / flops_per_second / total,
        "distinct_tokens": work.body_tokens,
        "head_rows": work.head_rows,
        "pairs": len(pairs),
        "padded_tokens": padded_tokens(steps),
        **({"reference_seconds": results[0].reference_seconds} if setup.reference == "precomputed" else {}),
    }


def padded_tokens(steps: Steps) -> int:
    """Tokens of all rounds as 2 B rows padded to the longest of each step: what a trainer that pads whole steps runs through the body."""
    total = 0
    for start in range(0, len(steps.measured_pairs), steps.pairs_per_step):
        batch = steps.measured_pairs[start : start + steps.pairs_per_step]
        total += 2 * len(batch) * longest_row(batch)
    return total


def ratios(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """For each of ours against each peer in the same order of data: how many times as fast, and which part of its memory."""
    found = {}
    ours = [name for name in figures if name.startswith(OURS)]
    for mine in ours:
        for peer in figures:
            if peer in ours or peer.endswith("-grouped") != mine.endswith("-grouped"):
                continue
            by_round = zip(figures[peer]["seconds_of_rounds"], figures[mine]["seconds_of_rounds"], strict=True)
            paired = [theirs / own for theirs, own in by_round]
            speed = statistics.median(paired)
            memory = figures[mine]["peak_memory_gib"] / figures[peer]["peak_memory_gib"]
            found[f"{mine} over {peer}"] = {"speed": speed, "least": min(paired), "most": max(paired), "memory": memory}
    return found


def _settings(which: Contender, setup: Setup, *, path: str) -> dict[str, Any]:
    """Every setting of the trainer of this contender that is not its default."""
    if not which.is_ours:
        return trl_settings(which, setup)
    asked = which.tokens or setup.tokens_per_micro_batch
    longest = max(pair.num_tokens for pair in setup.steps.pairs)
    budget = f"auto: {max(AUTO_BUDGET, longest)}" if asked == "auto" else asked
    loss = {"nll_over": setup.nll_over, "nll_average": "token"} if setup.objective == "orpo" else OPTIONS[setup.objective]
    return {"path": path, "tokens_per_micro_batch": budget, **loss, "optim": "adamw_torch_fused"}


def _equal(wanted: Comparison) -> dict[str, Any]:
    """What is the same for all, in words and numbers."""
    return {
        "weights": f"random, seed {wanted.seed}; trained weights in float32",
        "matrix_products": wanted.dtype,
        "pairs": f"the same pairs in the same steps, already tokenized; {wanted.num_left_out} of "
        f"{wanted.num_left_out + len(wanted.pairs)} left out for their length",
        "a_step": "forward, backward, clipping to norm 1, fused AdamW, zero_grad, in the loop of transformers.Trainer",
        "outside_the_clock": "collation, logging, checkpoints, on both sides",
        **(_likelihood(wanted.nll_over) if wanted.objective == "orpo" else rival_facts(wanted.objective, wanted.reference)),
        "checkpointing": wanted.checkpointing,
        "shape": wanted.shape.as_dict(),
        "pairs_per_step": wanted.pairs_per_step,
        "steps_per_round": wanted.steps_per_round,
        "rounds": f"{wanted.rounds}, each with pairs of its own, the same for all",
        "grouped_batches": wanted.grouped_batches,
    }


def _likelihood(nll_over: str) -> dict[str, str]:
    """What the likelihood of each side covers."""
    return {
        "likelihood": f"ours over the {nll_over}; TRL's over prompt and completion: it has no option for the completion alone, "
        "and computes all logits of all rows in any case"
    }


def with_layers(shape: ModelShape, layers: int | None) -> ModelShape:
    """`shape`, or the same with fewer layers."""
    return replace(shape, layers=layers) if layers else shape


def code_version() -> str:
    """The commit of the code that was measured, and whether anything in it was changed since; 'unknown' outside of a repository."""
    import subprocess

    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False).stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return f"{commit}{', changed since' if changed else ''}" if commit else "unknown"


def result_file(path: Path, what: str, content: Mapping[str, Any]) -> Path:
    """`path`, now holding `content` with date, command, hardware and versions."""
    from importlib.metadata import PackageNotFoundError, version

    from orpo.training.environment import environment

    versions = {}
    for package in ("trl", "liger-kernel"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    facts = environment()
    facts["libraries"] |= versions
    facts["code"] = code_version()
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"what": what, "date": date, "environment": facts, **content}, indent=1, default=str) + "\n", encoding="utf-8"
    )
    return path

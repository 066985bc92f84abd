"""A training step of ours against one of TRL's: time, memory, and the share of what the machine can do.

python benchmarks/bench_step.py --data hh --contenders orpo,trl,trl-mb1,trl-grouped,orpo-grouped --out benchmarks/results/DATE-step.json
python benchmarks/bench_step.py --sweep prompt-share --out benchmarks/results/DATE-prompt-share.json
python benchmarks/bench_step.py --objective dpo --reference live --data hh --longest-row 400 --dtype bfloat16

Contenders: orpo, orpo-tokensN (a token budget), trl, trl-mbN (N pairs at once, accumulated), trl-liger; -grouped after any of them
measures along an epoch in length-grouped order. With another --objective our side is called ours. Each runs in a process of its own;
rounds take turns. All rivals of ORPO in one table: bench_rivals.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from model_shapes import SHAPES
from orpo.errors import ConfigError
from pair_data import LENGTHS, NUM_RANDOM_PAIRS, load_pairs, random_batches, random_pairs
from rivals import OPTIONS, READ_REFERENCE, REFERENCES, case_name
from step_bench import Comparison, compare, result_file
from step_options import add_nll_over, comparison, ends_well, publish, rival_comparison, step_parser
from step_table import show

MICRO_BATCHES = (1, 2, 4, 8)
PROMPT_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
PAIR_TOKENS = 400
"""Median tokens of prompt, chosen and rejected together when the prompt's share is swept."""
SPREAD = 0.6
"""Standard deviation of the logarithm of these lengths."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a sweep: its place on the axis, what to compare there, and the name each contender goes by in the curve."""

    x: float
    wanted: Comparison
    curves: dict[str, str]


def sweep_points(options: argparse.Namespace) -> Iterator[Point]:
    """The points of --sweep, on random pairs."""
    base = comparison(options, dtype=options.dtype, device="cpu", nll_over=options.nll_over, pairs=())
    if options.sweep == "micro-batch":
        yield from _micro_batch_points(base, options)
        return
    for share in PROMPT_SHARES:
        answer = PAIR_TOKENS * (1 - share) / 2
        make = {
            "prompt": PAIR_TOKENS * share,
            "answer": answer,
            "spread": SPREAD,
            "vocabulary": base.shape.vocabulary,
            "seed": options.seed,
        }
        wanted = replace(base, pairs=random_pairs(NUM_RANDOM_PAIRS, **make))
        yield Point(share, wanted, {name: name for name in base.contenders})


def _micro_batch_points(base: Comparison, options: argparse.Namespace) -> Iterator[Point]:
    """1, 2, 4, 8 pairs at once: for TRL by number, for ours by as many tokens as that many pairs have on average.

    Ours takes no less than the longest pair at once, so its first points may be the same.
    """
    data = options.data if options.data in LENGTHS else "synthetic"
    drawn = load_pairs(data, vocabulary=base.shape.vocabulary, seed=options.seed)
    batches = random_batches(drawn, num=base.steps_per_round * base.rounds, size=base.pairs_per_step, seed=options.seed)
    pairs = [pair for batch in batches for pair in batch]
    mean, longest = sum(pair.num_tokens for pair in pairs) / len(pairs), max(pair.num_tokens for pair in pairs)
    for size in (size for size in MICRO_BATCHES if base.pairs_per_step % size == 0):
        budget = max(longest, round(size * mean))
        curves = {f"orpo-tokens{budget}" if name == "orpo" else f"{name}-mb{size}": name for name in base.contenders}
        yield Point(size, replace(base, pairs=pairs, contenders=tuple(curves)), curves)


def sweep(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of every contender at every point, by the name of its curve."""
    points = []
    for point in sweep_points(options):
        result = compare(point.wanted)
        show(result, f"{options.sweep} {point.x:g}")
        contenders = {point.curves[name]: figures for name, figures in result["contenders"].items()}
        points.append({"x": point.x, **result, "contenders": contenders})
    return {"sweep": options.sweep, "shape": options.shape, "dtype": options.dtype, "points": points}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = step_parser(__doc__ or "", shape="135m", data="hh", contenders="orpo,trl")
    add_nll_over(made)
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of matrix products, on both sides")
    made.add_argument("--sweep", choices=("micro-batch", "prompt-share"), help="a curve over random pairs in place of one table")
    made.add_argument("--objective", choices=("orpo", *OPTIONS), default="orpo", help="what is trained (default orpo)")
    made.add_argument("--reference", choices=REFERENCES, help="of dpo, ipo, kto: a frozen copy (default), or log-probs made before")
    return made


def asked(options: argparse.Namespace) -> Comparison:
    """What is compared in one table. Raises ConfigError for an option that the objective does not have."""
    objective = options.objective
    if options.reference and objective not in READ_REFERENCE:
        raise ConfigError(f"--reference is {options.reference}, but {objective} reads no reference", expected=", ".join(READ_REFERENCE))
    if objective == "orpo":
        return comparison(options, dtype=options.dtype, device="cpu", nll_over=options.nll_over)
    for name in ("nll_over", "sweep"):
        if getattr(options, name) != parser().get_default(name):
            raise ConfigError(f"--{name.replace('_', '-')} is of ORPO alone, and --objective is {objective}", fix="leave one of them out")
    if options.contenders == parser().get_default("contenders"):
        options.contenders = "ours,trl"
    return rival_comparison(options, objective, (options.reference or REFERENCES[0]) if objective in READ_REFERENCE else "")


def main() -> None:
    """The command."""
    options = parser().parse_args()
    if options.sweep and options.objective == "orpo":
        result = sweep(options)
        if options.out:
            print(f"written: {result_file(options.out, 'step-sweep', result)}")
        return
    layers = options.layers or SHAPES[options.shape].layers
    wanted = asked(options)
    result = compare(wanted)
    title = f"One optimizer step of {options.pairs_per_step} pairs, {options.shape} ({layers} layers), {options.data}, {options.dtype}, CPU"
    if options.objective != "orpo":
        title = f"{case_name(wanted.objective, wanted.reference)}: {title}"
    publish(result, options, what="step", title=title)


if __name__ == "__main__":
    ends_well(main)

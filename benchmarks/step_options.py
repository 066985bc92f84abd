"""The command line that the benchmarks of steps share, and how its answers become a comparison and files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contenders import UnknownContender
from first_losses import LossesDiffer
from model_shapes import SHAPES
from orpo.core.tokens import TokenizedExample
from orpo.errors import ConfigError, OrpoError
from pair_data import FILES, LENGTHS, NoData, load_pairs, longest_row
from rounds import ContenderFailed
from step_bench import Comparison, result_file, with_layers
from step_table import markdown, show, write_markdown


def step_parser(about: str, *, shape: str, data: str, contenders: str) -> argparse.ArgumentParser:
    """The options that every benchmark of steps has; `shape`, `data` and `contenders` are its defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shape", choices=tuple(SHAPES), default=shape, help=f"model shape (default {shape})")
    add("--layers", type=int, help="decoder layers, to shorten the shape")
    add("--data", choices=(*FILES, *LENGTHS), default=data, help=f"pairs (default {data})")
    add("--longest-row", type=int, help="leave out pairs with a longer row, for all: a padded batch with one long row may not fit")
    add("--contenders", default=contenders, help=f"comma separated (default {contenders})")
    add("--rounds", type=int, default=5, help="measured rounds; the median counts")
    add("--steps-per-round", type=int, default=1, help="optimizer steps of a round")
    add("--pairs-per-step", type=int, default=8)
    add("--grouped-batches", type=int, default=6, help="steps of a round of the -grouped contenders, along an epoch in grouped order")
    add("--tokens-per-micro-batch", type=_budget, default="auto", help="ours: a number, or auto")
    add("--checkpointing", action="store_true", help="recompute activations, on both sides")
    add("--seed", type=int, default=0)
    add("--out", type=Path, help="JSON file to write; a .md of the same name is written beside it")
    return parser


def add_nll_over(parser: argparse.ArgumentParser) -> None:
    """Nothing; `parser` has the option of ORPO's own likelihood."""
    choices = ("completion", "prompt+completion")
    parser.add_argument("--nll-over", choices=choices, default="prompt+completion", help="ours, of ORPO: what the likelihood covers")


def _budget(text: str) -> int | str:
    return text if text == "auto" else int(text)


def comparison(
    options: argparse.Namespace, *, dtype: str, device: str, nll_over: str, pairs: Sequence[TokenizedExample] | None = None
) -> Comparison:
    """What the options ask for, of ORPO, on `pairs` or on those that --data names."""
    shape = with_layers(SHAPES[options.shape], options.layers)
    names = tuple(options.contenders.split(","))
    if pairs is None:
        pairs = load_pairs(options.data, vocabulary=shape.vocabulary, seed=options.seed)
    kept = [pair for pair in pairs if not options.longest_row or longest_row([pair]) <= options.longest_row]
    return Comparison(
        contenders=names,
        shape=shape,
        pairs=kept,
        num_left_out=len(pairs) - len(kept),
        pairs_per_step=options.pairs_per_step,
        steps_per_round=options.steps_per_round,
        rounds=options.rounds,
        dtype=dtype,
        device=device,
        nll_over=nll_over,
        checkpointing=options.checkpointing,
        tokens_per_micro_batch=options.tokens_per_micro_batch,
        seed=options.seed,
        grouped_batches=options.grouped_batches,
    )


def rival_comparison(options: argparse.Namespace, objective: str, reference: str) -> Comparison:
    """The same of a rival of ORPO, on a CPU. Raises ConfigError for a shape whose weights are frozen."""
    if SHAPES[options.shape].lora:
        raise ConfigError(f"--shape {options.shape} trains adapters; the rivals are measured with all weights trained", fix="--shape 135m")
    nll_over = "nothing" if objective == "reward" else "completion"
    of_orpo = comparison(options, dtype=options.dtype, device="cpu", nll_over=nll_over)
    return replace(of_orpo, objective=objective, reference=reference)


def publish(result: dict[str, Any], options: argparse.Namespace, *, what: str, title: str) -> None:
    """Nothing; the result is shown, and written where --out says."""
    show(result, title)
    if options.out:
        write_result(result, options, what=what, lines=markdown(result), title=title)


def write_result(result: dict[str, Any], options: argparse.Namespace, *, what: str, lines: Sequence[str], title: str) -> None:
    """Nothing; --out holds the result, and the Markdown file of the same name its `lines`."""
    content = {**result, "options": {name: str(value) for name, value in vars(options).items()}}
    written = json.loads(result_file(options.out, what, content).read_text(encoding="utf-8"))
    write_markdown(options.out.with_suffix(".md"), lines, title, written["environment"])
    print(f"written: {options.out}")


def ends_well(main: Callable[[], None]) -> None:
    """Runs `main`; what the user can act on is one line and exit code 2, losses that differ are 3."""
    try:
        main()
    except (NoData, UnknownContender, OrpoError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except LossesDiffer as error:
        print(f"no figures: {error}", file=sys.stderr)
        sys.exit(3)
    except ContenderFailed as error:
        print(error, file=sys.stderr)
        sys.exit(1)

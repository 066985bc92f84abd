"""A training step of every rival of ORPO, ours against TRL's: DPO, IPO and KTO with a live and with a precomputed reference, reward model.

python benchmarks/bench_rivals.py --data hh --longest-row 400 --dtype bfloat16 --out benchmarks/results/DATE-step-rivals-hh-bf16.json
python benchmarks/bench_rivals.py --shape tiny --data synthetic --rounds 1

One comparison after the other, each as bench_step.py --objective makes it; the files are written anew after each, so that what ends it
early leaves what was measured.
"""

from __future__ import annotations

import argparse
from typing import Any

from model_shapes import SHAPES
from orpo.errors import ConfigError
from rivals import CASES, case_name
from step_bench import compare
from step_options import ends_well, rival_comparison, step_parser, write_result
from step_table import rivals_markdown, show

NAMES = {case_name(*case): case for case in CASES}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = step_parser(__doc__ or "", shape="135m", data="hh", contenders="ours,trl")
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of matrix products, on both sides")
    made.add_argument("--cases", default=",".join(NAMES), help="comma separated (default all)")
    return made


def asked_cases(options: argparse.Namespace) -> list[str]:
    """The names of --cases. Raises ConfigError for one that there is not."""
    names: list[str] = options.cases.split(",")
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"--cases has {name!r}", expected=f"some of {', '.join(NAMES)}")
    return names


def main() -> None:
    """The command."""
    options = parser().parse_args()
    layers = options.layers or SHAPES[options.shape].layers
    about = f"{options.pairs_per_step} pairs, {options.shape} ({layers} layers), {options.data}, {options.dtype}, CPU"
    cases: dict[str, Any] = {}
    for name in asked_cases(options):
        cases[name] = compare(rival_comparison(options, *NAMES[name]))
        show(cases[name], f"{name}: one optimizer step of {about}")
        if options.out:
            title = f"One optimizer step of the rivals, {about}"
            write_result({"cases": cases}, options, what="step-rivals", lines=rivals_markdown(cases), title=title)


if __name__ == "__main__":
    ends_well(main)

"""A training step at the size people train: 1B in full, 8B with LoRA, on a GPU in bfloat16; ours, TRL, TRL with Liger's fused loss.

python benchmarks/bench_gpu.py --shape 1b --data ultrafeedback-like --out benchmarks/results/DATE-gpu-1b.json
python benchmarks/bench_gpu.py --shape 8b-lora --data hh-like --out benchmarks/results/DATE-gpu-8b-lora.json

Weights and pairs are random; the share of the floor is that of the matrix products measured on the same device in the same run. One
contender after the other, each in a process of its own, for the memory of a device does not hold all of them at once.
"""

from __future__ import annotations

import argparse

from orpo.errors import ConfigError
from rounds import one_after_another
from step_bench import compare
from step_options import add_nll_over, comparison, ends_well, publish, step_parser


def _checked_device(options: argparse.Namespace) -> str:
    """The device; ConfigError when there is none."""
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device", fix="--device cpu --shape tiny shows that the benchmark runs")
    return str(options.device)


def main() -> None:
    """The command."""
    about = __doc__ or ""
    parser = step_parser(about, shape="1b", data="ultrafeedback-like", contenders="orpo,trl,trl-mb1,trl-liger")
    add_nll_over(parser)
    parser.set_defaults(steps_per_round=5)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is for a try at --shape tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="float32 shows that the losses are equal")
    options = parser.parse_args()
    device = _checked_device(options)
    wanted = comparison(options, dtype=options.dtype, device=device, nll_over=options.nll_over)
    result = compare(wanted, take=one_after_another)
    title = f"One optimizer step of {options.pairs_per_step} pairs, {options.shape}, {options.data}, {options.dtype}, {device}"
    publish(result, options, what="gpu", title=title)


if __name__ == "__main__":
    ends_well(main)

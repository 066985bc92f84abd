"""Attention over a pack against a dense mask over it and against padded rows: seconds forward and backward, interleaved in one process.

python benchmarks/bench_attention.py --lengths hh --dtype bfloat16 --threads 2 --out benchmarks/results/DATE-attention.json
python benchmarks/bench_attention.py --pairs 2 --prompt 12 --answer 5 --rounds 2

One layer's attention on random numbers, without the projections around it. Masks and indices are built before, as a model builds them
once for all layers. Ratios are the median of each way over that of "in blocks" (on CUDA, of the kernel that the engine chooses).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orpo.core.tokens import TokenizedExample
from orpo.engine.attention import attend_by_example
from orpo.engine.attention_cpu import attend_in_blocks
from orpo.engine.attention_flex import attend_flex, mask_function
from orpo.engine.layout import Layout, pack
from pair_data import random_pairs

LENGTHS = {"hh": (8, 120, 45), "ultrafeedback": (4, 150, 300), "long": (1, 2000, 1000)}
"""Pairs, and the median tokens of their prompts and answers."""
WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Way:
    """One way to attend: its inputs, and what makes an output [rows, tokens, heads, D] of them."""

    tensors: tuple[Tensor, Tensor, Tensor]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Shape:
    """Heads of queries and of keys, and their dimension."""

    heads: int
    kv_heads: int
    head_dim: int

    def tensors(self, rows: int, tokens: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Random query, key and value, laid out as a model's projections lay them out."""

        def random(heads: int) -> Tensor:
            return torch.randn(rows, tokens, heads, self.head_dim).to(like).transpose(1, 2).requires_grad_()

        return random(self.heads), random(self.kv_heads), random(self.kv_heads)


def ways(pairs: Sequence[TokenizedExample], shape: Shape, like: Tensor) -> dict[str, Way]:
    """The ways to compare, by name; the engine's own first. `like` has the dtype and device of the inputs."""
    layout = pack(pairs).layout
    packed = shape.tensors(1, layout.num_rows, like)
    own = {"chosen kernel": _cuda_attend, "flex": attend_flex} if like.is_cuda else {"in blocks": attend_in_blocks}
    found = {name: Way(packed, _over(layout, attend, shape)) for name, attend in (own | {"by example": attend_by_example}).items()}
    if not like.is_cuda and like.dtype != torch.float32:
        found |= {
            f"{name}, in fp32": Way(packed, _in_fp32(way.attend)) for name, way in found.items() if name in ("by example", "in blocks")
        }
    rows = torch.arange(layout.num_rows, device=like.device)
    dense = mask_function(layout, None, like.device)(rows, rows, rows[:, None], rows[None])
    found["dense mask over the pack"] = Way(packed, _masked(dense, shape))
    lengths = [len(pair.prompt_ids) + len(completion) for pair in pairs for completion in pair.completions]
    longest = max(lengths)
    real = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    padded = shape.tensors(len(lengths), longest, like)
    found["padded rows"] = Way(padded, _masked((causal & real[:, None])[:, None].to(like.device), shape))
    return found


def seconds(found: dict[str, Way], rounds: int) -> dict[str, dict[str, float]]:
    """Median and least seconds of each way, forward and backward, over `rounds` interleaved rounds."""
    taken: dict[str, list[float]] = {name: [] for name in found}
    gradients: dict[str, Tensor] = {}
    for turn in range(WARM_UP + rounds):
        for name, way in found.items():
            start = _now(way)
            out = way.attend(*way.tensors)
            torch.autograd.grad(out, way.tensors, gradients.setdefault(name, torch.ones_like(out)))
            if turn >= WARM_UP:
                taken[name].append(_now(way) - start)
    return {name: {"median_seconds": statistics.median(times), "least_seconds": min(times)} for name, times in taken.items()}


def errors(found: dict[str, Way]) -> dict[str, dict[str, float]]:
    """Relative errors of output and gradients of each way over the pack, against fp32 example by example on the same inputs."""
    wide = tuple(tensor.detach().float().requires_grad_() for tensor in found["by example"].tensors)
    gradient = torch.randn_like(found["by example"].attend(*wide))

    def results(way: Way, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        out = way.attend(*tensors)
        return [out.detach(), *torch.autograd.grad(out, tensors, gradient.to(out))]

    truth = results(found["by example"], wide)
    names = ("output", "query", "key", "value")
    return {
        name: {part: float((a.float() - b).norm() / b.norm()) for part, a, b in zip(names, results(way, way.tensors), truth, strict=True)}
        for name, way in found.items()
        if name != "padded rows"
    }


def _now(way: Way) -> float:
    """Seconds of a clock, once the device has nothing left to do."""
    if way.tensors[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def _cuda_attend(*tensors: Tensor, **options: Any) -> Tensor:
    from orpo.engine.attention_cuda import attend

    return attend(*tensors, **options)


def _over(layout: Layout, attend: Callable[..., Tensor], shape: Shape) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`attend` over `layout`."""
    options = {"scale": shape.head_dim**-0.5, "window": None, "softcap": None, "sinks": None}
    return lambda query, key, value: attend(query, key, value, layout, **options)


def _in_fp32(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`attend` with inputs made fp32 and its output made theirs again."""
    return lambda query, key, value: attend(query.float(), key.float(), value.float()).to(query.dtype)


def _masked(mask: Tensor, shape: Shape) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """torch's attention under `mask`."""
    grouped = shape.heads != shape.kv_heads
    return lambda query, key, value: F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped).transpose(1, 2)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Lengths, seconds, ratios and errors of every way."""
    torch.manual_seed(options.seed)
    num, prompt, answer = LENGTHS[options.lengths]
    num, prompt, answer = options.pairs or num, options.prompt or prompt, options.answer or answer
    pairs = random_pairs(num, prompt=prompt, answer=answer, spread=options.spread, vocabulary=1000, seed=options.seed)
    shape = Shape(options.heads, options.kv_heads, options.head_dim)
    found = ways(pairs, shape, torch.empty(0, dtype=getattr(torch, options.dtype), device=options.device))
    times = seconds(found, options.rounds)
    first = next(iter(times))
    ratios = {name: figures["median_seconds"] / times[first]["median_seconds"] for name, figures in times.items()}
    tokens = {"pack": found[first].tensors[0].shape[2], "padded": found["padded rows"].tensors[0][:, 0, :, 0].numel()}
    return {
        "settings": vars(options) | {"out": None},
        "tokens": tokens,
        "seconds": times,
        f"ratios_to_{first}": ratios,
        "errors": errors(found),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line per way; writes --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", choices=LENGTHS, default="hh")
    for name in ("pairs", "prompt", "answer"):
        parser.add_argument(f"--{name}", type=int, help=f"{name} in place of those of --lengths")
    for name, default in (("heads", 9), ("kv-heads", 3), ("head-dim", 64), ("rounds", 15), ("threads", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--spread", type=float, default=0.6, help="standard deviation of the logarithm of a length")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    result = measured(options)
    ratios = next(figures for name, figures in result.items() if name.startswith("ratios_to_"))
    for name, figures in result["seconds"].items():
        print(f"{name:<28}{figures['median_seconds'] * 1e3:10.2f} ms {ratios[name]:8.2f}")
    if options.out:
        from step_bench import result_file

        result_file(options.out, "attention of one layer, forward and backward", result)


if __name__ == "__main__":
    main()

"""The physical floor of a step: the multiply-adds that cannot be left out, over the rate this machine reaches on such products."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model_shapes import ModelShape
from orpo.core.tokens import TokenizedExample

HEAD_ROWS = 1024
"""Rows of the head's product that is timed; more only takes memory."""


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of the body S, rows of the head S_h, and the floating point operations of a step over them."""

    body_tokens: int
    head_rows: int
    flops: int


def step_work(shape: ModelShape, pairs: Sequence[TokenizedExample], *, nll_over: str, checkpointing: bool, extra_forwards: int = 0) -> Work:
    """What a step over `pairs` has to compute:

        6 N S + 6 V H S_h       S distinct tokens, S_h rows of the head; forward 2, backward 4
        8 N S                   the body, with its activations computed again
        4 N S + 4 V H S_h       with frozen weights (LoRA; the adapters' own products, about 1 %, are left out)
        2 N S + 2 V H S_h       for each of `extra_forwards` over as many tokens: of a reference, or for a baseline

    S_h is C + R where `nll_over` is completion, P - 1 + C + R (each predicted token once) where it is prompt+completion, and 0 where it is
    nothing: a reward model has no head over the vocabulary. Attention's own products are not counted, nor anything that is not a product.
    """
    tokens = sum(pair.num_tokens for pair in pairs)
    rows = 0 if nll_over == "nothing" else sum(sum(map(len, pair.completions)) for pair in pairs)
    if nll_over == "prompt+completion":
        rows += sum(len(pair.prompt_ids) - 1 for pair in pairs)
    passes = (4 if shape.lora else 6) + 2 * extra_forwards
    body = (passes + 2 * checkpointing) * shape.body_parameters * tokens
    return Work(tokens, rows, body + passes * shape.vocabulary * shape.hidden * rows)


def product_shapes(shape: ModelShape, micro_batch_tokens: int) -> dict[str, tuple[int, int, int]]:
    """Name -> (rows, inner, columns) of the products that are timed: those of one layer on a micro-batch, and the head's."""
    names = ("q", "k", "v", "o", "gate", "up", "down")
    layer = {name: (micro_batch_tokens, *matrix) for name, matrix in zip(names, shape.layer_matrices, strict=True) if name != "v"}
    return {**layer, "head": (min(HEAD_ROWS, micro_batch_tokens), shape.hidden, shape.vocabulary)}


def product_rates(shapes: dict[str, tuple[int, int, int]], *, dtype: str, device: str, repeats: int = 3) -> dict[str, float]:
    """Floating point operations per second of each product, the best of `repeats`."""
    import torch

    rates = {}
    for name, (rows, inner, columns) in shapes.items():
        left, right = (torch.ones(size, dtype=getattr(torch, dtype), device=device) for size in ((rows, inner), (columns, inner)))
        out = left @ right.T
        best = float("inf")
        for _ in range(repeats):
            best = min(best, _seconds(left, right, out, device))
        rates[name] = 2 * rows * inner * columns / best
    return rates


def _seconds(left: Any, right: Any, out: Any, device: str) -> float:
    """How long one product takes: enough of them in a row that the clock does not matter."""
    import torch

    times = 20 if device == "cuda" else 1
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        torch.matmul(left, right.T, out=out)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times

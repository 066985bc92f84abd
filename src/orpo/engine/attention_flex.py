"""Attention over a pack by FlexAttention, for scores that other kernels cannot change: soft-caps and sinks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from orpo.engine.layout import Layout

BLOCK = 128
MOST_PAIRS_AT_ONCE = 2**26
"""Query-key pairs looked at in one go while blocks are counted: 64 MiB of booleans."""

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreFunction = Callable[..., Tensor]


def attend_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
    function: Callable[..., Any] | None = None,
) -> Tensor:
    """Attention [1, T, heads, D] of a pack; query [1, heads, T, D]. `function` is flex_attention, compiled unless given.

    A sink s per head takes weight and gives nothing: with l the log-sum-exp of a row's scores, its output shrinks by
    exp(l) / (exp(l) + exp(s)) = sigmoid(l - s).
    """
    flex = function or _compiled()
    out, aux = flex(
        query,
        key,
        value,
        score_mod=score_function(softcap) if softcap is not None else None,
        block_mask=_cached_block_mask(layout, window, query.device),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=sinks is not None),
    )
    if sinks is not None:
        share = torch.sigmoid(aux.lse.float() - sinks.float().reshape(1, -1, 1))
        out = (out.float() * share[..., None]).to(value.dtype)
    attended: Tensor = out.transpose(1, 2).contiguous()
    return attended


def mask_function(layout: Layout, window: int | None, device: torch.device) -> MaskFunction:
    """(batch, head, query row, key row) -> whether the query sees the key. Made of three int32 numbers per row of the pack.

    A row's branch counts from 1 within its example and is 0 for the prefix, which all branches see.
    """
    example, branch, position = (torch.tensor(numbers, dtype=torch.int32, device=device) for numbers in zip(*_numbers(layout), strict=True))

    def causal(_batch: Tensor, _head: Tensor, row: Tensor, other: Tensor) -> Tensor:
        seen = (example[row] == example[other]) & ((branch[other] == 0) | (branch[other] == branch[row]))
        return seen & (position[other] <= position[row])

    if window is None:
        return causal
    width = window

    def causal_within_window(batch: Tensor, head: Tensor, row: Tensor, other: Tensor) -> Tensor:
        return causal(batch, head, row, other) & (position[row] - position[other] < width)

    return causal_within_window


def score_function(softcap: float) -> ScoreFunction:
    """(score, batch, head, query row, key row) -> softcap * tanh(score / softcap)."""

    def capped(score: Tensor, _batch: Tensor, _head: Tensor, _row: Tensor, _other: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped


def block_mask(layout: Layout, window: int | None, device: torch.device) -> BlockMask:
    """Which blocks of 128 x 128 rows are seen wholly, partly, or not, and `mask_function` for those seen partly.

    Counted over stripes of queries: torch's create_block_mask makes all T x T pairs at once unless it is compiled.
    """
    sees = mask_function(layout, window, device)
    num_rows = layout.num_rows
    num_blocks = -(-num_rows // BLOCK)
    others = torch.arange(num_rows, device=device)[None]
    zero = others.new_zeros(())
    counts = torch.zeros(num_blocks, num_blocks, dtype=torch.int64, device=device)
    stripe = max(1, MOST_PAIRS_AT_ONCE // (num_blocks * BLOCK * BLOCK))
    for first in range(0, num_blocks, stripe):
        last = min(first + stripe, num_blocks)
        rows = torch.arange(first * BLOCK, min(last * BLOCK, num_rows), device=device)[:, None]
        pairs = torch.zeros((last - first) * BLOCK, num_blocks * BLOCK, dtype=torch.bool, device=device)
        pairs[: len(rows), :num_rows] = sees(zero, zero, rows, others)
        counts[first:last] = pairs.view(last - first, BLOCK, num_blocks, BLOCK).sum(dim=(1, 3))
    # A block at the ragged end never reaches the full count, so it stays partial and padding is masked.
    full = counts == BLOCK * BLOCK
    return BlockMask.from_kv_blocks(
        *_listed((counts > 0) & ~full), *_listed(full), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(num_rows, num_rows)
    )


@cache
def _compiled() -> Callable[..., Any]:
    """flex_attention as one kernel. Uncompiled it would make every score of the pack."""
    return torch.compile(flex_attention)


def _cached_block_mask(layout: Layout, window: int | None, device: torch.device) -> BlockMask:
    """`block_mask`, built once for all layers with this window."""
    name = ("block mask", window, device)
    if name not in layout.cache:
        layout.cache[name] = block_mask(layout, window, device)
    mask: BlockMask = layout.cache[name]
    return mask


def _numbers(layout: Layout) -> list[tuple[int, int, int]]:
    """(example, branch, position) of each row."""
    numbers: list[tuple[int, int, int]] = []
    for index, example in enumerate(layout.examples):
        numbers += [(index, 0, position) for position in range(example.prefix)]
        for branch, own in enumerate(example.branches, start=1):
            numbers += [(index, branch, position) for position in range(example.prefix, example.prefix + own)]
    return numbers


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Per block of queries: how many of `blocks` [queries, keys] hold, and the keys with those first; each [1, 1, ...] int32."""
    order = torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]

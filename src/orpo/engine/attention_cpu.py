"""Attention over a pack on the CPU: plain matrix products over many blocks of queries at a time, with a backward of its own.

A block of queries meets only the keys that its first and last query can see, and blocks with about as many keys share a batched product:
a pack of short examples would else be hundreds of products too small to be worth their calls. torch's own CPU kernel makes its products
from small tiles that gain nothing from bf16 instructions; `attend_by_example`, which calls it, is the slow twin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orpo.engine.attention import attend_by_example
from orpo.engine.layout import Layout

BLOCK = 32
"""Queries of a block. Smaller blocks waste fewer products above the diagonal, larger ones run at a better rate."""

CACHED_BYTES = 2**23
"""fp32 scores of the blocks that are computed together: what stays in cache from one elementwise step to the next."""

LONGEST_KEPT = 512
"""Keys up to which the attention weights of a block are kept for the backward pass: a few per cent of a layer's activations. Those of
longer ones would grow with the square of the length, and are made again."""

PAD = -1e30
"""Added to the scores of what only fills up a block. Finite: a row that sees nothing else must not become NaN."""


class Block(NamedTuple):
    """Queries `first`..`last` of the pack against rows `shared`..`shared_end` (of the prefix) and `own`..`last` before or at them."""

    first: int
    last: int
    shared: int
    shared_end: int
    own: int

    @property
    def num_keys(self) -> int:
        """Keys that the last query can see, and some that only the first can."""
        return self.shared_end - self.shared + self.last - self.own


@dataclass(frozen=True, slots=True)
class Batch:
    """`num` blocks of BLOCK queries and `width` keys, for G groups of heads: rows of [T G, ...] tensors, row t of group g being t G + g.

    Both are filled up in front, so that the last query meets the last key: queries [num G BLOCK] by row T G, which is none, keys
    [num G width] by row 0, which `padding` [num, 1, 1, 1, n] hides in the first n columns. `hidden` [BLOCK, 1, n] is added to the scores
    of the last n columns: -inf for what comes after a query, or lies outside of its window.
    """

    num: int
    width: int
    queries: Tensor
    keys: Tensor
    padding: Tensor
    hidden: Tensor


def attend_in_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention [1, T, heads, D] of a pack; query [1, heads, T, D]. With soft-cap or sinks it is `attend_by_example`.

    Scores, and the gradient of the weights, are fp32 also for bf16 inputs; weights are rounded to the dtype of the inputs.
    """
    if softcap is not None or sinks is not None:
        return attend_by_example(query, key, value, layout, scale=scale, window=window, softcap=softcap, sinks=sinks)
    assert query.dtype == key.dtype == value.dtype, "autocast has been applied before"
    attended: Tensor = _Blocks.apply(query, key, value, layout, scale, window)  # type: ignore[no-untyped-call]
    return attended


class _Blocks(torch.autograd.Function):
    """P = softmax(scale Q K'), out = P V; with G the gradient of out and d = rowsum(G * out), dS = scale P * (G V' - d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
        num_groups, num_rows = key.shape[1:3]
        queries, keys, values = _rows(query, num_groups, spare=1), _rows(key, num_groups), _rows(value, num_groups)
        out = query.new_empty(len(queries), query.shape[1] // num_groups * value.shape[-1])
        kept: list[Tensor] = []
        # Autocast would turn the fp32 products of the scores into bf16 ones.
        with torch.autocast("cpu", enabled=False):
            for batch in _batches(layout, window, query.shape[1], num_groups):
                weights = _weights(queries, keys, batch, scale).to(query.dtype)
                part = torch.bmm(weights, _taken(values, batch.keys, batch.num * num_groups, value.shape[-1]))
                out.index_copy_(0, batch.queries, part.view(-1, out.shape[1]))
                if batch.width <= LONGEST_KEPT:
                    kept.append(weights)
        attended = out[:-1].view(1, num_rows, query.shape[1], -1)
        ctx.save_for_backward(queries, keys, values, attended, *kept)
        ctx.layout, ctx.scale, ctx.window, ctx.num_groups = layout, scale, window, num_groups
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return (*_backward(ctx, gradients[0]), None, None, None)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to query, key and value. Sums over blocks and branches are made in fp32, in the order of the pack."""
    queries, keys, values, attended, *kept = ctx.saved_tensors
    dtype, wide, num_groups = keys.dtype, _wide(keys), ctx.num_groups
    _, num_rows, num_heads, value_dim = attended.shape
    dim = keys.shape[1]
    gradients = _rows(gradient.transpose(1, 2), num_groups, spare=1)
    # The row that is none has no gradient, so what fills up a block adds nothing.
    drift = (gradients[:-1].to(wide) * attended.reshape(len(gradients) - 1, -1).to(wide)).view(len(gradients) - 1, -1, value_dim).sum(-1)
    drift = torch.nn.functional.pad(drift.mul_(ctx.scale), (0, 0, 0, 1))
    to_query = torch.empty_like(queries)
    to_key, to_value = torch.zeros_like(keys, dtype=wide), torch.zeros_like(values, dtype=wide)
    remembered = iter(kept)
    for batch in _batches(ctx.layout, ctx.window, num_heads, num_groups):
        count = batch.num * num_groups
        query, own = (_taken(rows, batch.queries, count, size) for rows, size in ((queries, dim), (gradients, value_dim)))
        key, value = (_taken(rows, batch.keys, count, size) for rows, size in ((keys, dim), (values, value_dim)))
        weights = next(remembered) if batch.width <= LONGEST_KEPT else _weights(queries, keys, batch, ctx.scale)
        # The scale goes into the gradient once, before anything is rounded.
        to_scores = torch.bmm(own.to(wide) * ctx.scale, value.to(wide).transpose(1, 2))
        to_scores = to_scores.sub_(_taken(drift, batch.queries, count, 1)).mul_(weights).to(dtype)
        to_query.index_copy_(0, batch.queries, torch.bmm(to_scores, key).view(-1, to_query.shape[1]))
        to_key.index_add_(0, batch.keys, torch.bmm(to_scores.transpose(1, 2), query).view(-1, dim).to(wide))
        to_value.index_add_(0, batch.keys, torch.bmm(weights.to(dtype).transpose(1, 2), own).view(-1, value_dim).to(wide))
    as_query = to_query[:-1].view(1, num_rows, num_heads, dim).transpose(1, 2)
    as_key, as_value = (rows.to(dtype).view(1, num_rows, num_groups, -1).transpose(1, 2) for rows in (to_key, to_value))
    return as_query, as_key, as_value


def _weights(queries: Tensor, keys: Tensor, batch: Batch, scale: float) -> Tensor:
    """Attention weights [num G, BLOCK * heads per group, width] of a batch of blocks, fp32."""
    wide, dim = _wide(keys), keys.shape[1]
    count = len(batch.keys) // batch.width
    query, key = _taken(queries, batch.queries, count, dim), _taken(keys, batch.keys, count, dim)
    scores = torch.bmm(query.to(wide) * scale, key.to(wide).transpose(1, 2))
    by_query = scores.view(batch.num, count // batch.num, BLOCK, -1, batch.width)
    by_query[..., : batch.padding.shape[-1]] += batch.padding.to(wide)
    by_query[..., batch.width - batch.hidden.shape[-1] :] += batch.hidden.to(wide)
    return torch.softmax(scores, dim=-1)


def _rows(heads: Tensor, num_groups: int, *, spare: int = 0) -> Tensor:
    """[1, heads, T, D] as [T groups + spare, heads per group * D]: heads that share keys side by side; spare rows are zeros."""
    rows = heads[0].transpose(0, 1).reshape(heads.shape[2] * num_groups, -1)
    return torch.nn.functional.pad(rows, (0, 0, 0, spare)) if spare else rows


def _taken(rows: Tensor, index: Tensor, count: int, dim: int) -> Tensor:
    """Rows `index` as [count, rows of one product, dim]."""
    return rows.index_select(0, index).view(count, -1, dim)


def _batches(layout: Layout, window: int | None, num_heads: int, num_groups: int) -> tuple[Batch, ...]:
    """The blocks of the pack in batches, made once for all layers with such heads."""
    name = ("cpu blocks", window, num_heads, num_groups)
    if name not in layout.cache:
        layout.cache[name] = tuple(_make_batches(layout, window, num_heads, num_groups))
    batches: tuple[Batch, ...] = layout.cache[name]
    return batches


def _make_batches(layout: Layout, window: int | None, num_heads: int, num_groups: int) -> Iterator[Batch]:
    """Blocks of like width, as many together as stay in cache."""
    by_width: dict[int, list[Block]] = {}
    for block in _blocks(layout, window):
        by_width.setdefault(-(-max(block.num_keys, BLOCK) // BLOCK) * BLOCK, []).append(block)
    for width, blocks in sorted(by_width.items()):
        hidden = _hidden(width, window)
        together = max(1, CACHED_BYTES // (4 * num_heads * BLOCK * width))
        for start in range(0, len(blocks), together):
            yield _batch(blocks[start : start + together], width, hidden, layout.num_rows, num_groups)


def _batch(blocks: list[Block], width: int, hidden: Tensor, num_rows: int, num_groups: int) -> Batch:
    queries = torch.full((len(blocks), BLOCK), num_rows)
    keys = torch.zeros(len(blocks), width, dtype=torch.int64)
    filled = torch.tensor([width - block.num_keys for block in blocks])
    for row, block in enumerate(blocks):
        queries[row, BLOCK - (block.last - block.first) :] = torch.arange(block.first, block.last)
        seen = torch.cat([torch.arange(block.shared, block.shared_end), torch.arange(block.own, block.last)])
        keys[row, width - len(seen) :] = seen
    padding = torch.where(torch.arange(int(filled.max())) < filled[:, None], PAD, 0.0)
    queries, keys = (
        (rows[:, None] * num_groups + torch.arange(num_groups)[:, None]).clamp(max=num_rows * num_groups) for rows in (queries, keys)
    )
    return Batch(len(blocks), width, queries.flatten(), keys.flatten(), padding[:, None, None, None], hidden)


def _hidden(width: int, window: int | None) -> Tensor:
    """[BLOCK, 1, n] to add to the last n of `width` columns: all of them with a window, else the corner where queries meet themselves."""
    num = BLOCK if window is None else width
    behind = torch.arange(num - BLOCK, num)[:, None] - torch.arange(num)
    outside = (behind < 0) if window is None else (behind < 0) | (behind >= window)
    return torch.zeros(BLOCK, num).masked_fill_(outside, float("-inf"))[:, None]


def _blocks(layout: Layout, window: int | None) -> Iterator[Block]:
    """The pack in order: a prefix with its first branch, then each further branch, in blocks of queries."""
    for example in layout.examples:
        first, prefix = example.start, 0
        for last in (start + own for start, own in zip(example.branch_starts, example.branches, strict=True)):
            for start in range(first, last, BLOCK):
                # Keys that lie outside of the window even of the first query are left out.
                left_out = 0 if window is None else max(0, prefix + start - first - window + 1)
                shared = example.start + min(left_out, prefix)
                own = first + max(0, left_out - prefix)
                yield Block(start, min(start + BLOCK, last), shared, example.start + prefix, own)
            first, prefix = last, example.prefix


def _wide(tensor: Tensor) -> torch.dtype:
    """The dtype of scores: fp32, or fp64 for fp64 inputs."""
    return torch.promote_types(tensor.dtype, torch.float32)

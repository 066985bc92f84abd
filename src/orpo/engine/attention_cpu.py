"""Attention over a pack on the CPU: plain matrix products, block by block, with a backward of its own.

A block of queries meets only the keys that its first and last query can see, all heads of a group in one product. torch's own CPU kernel
makes its products from small tiles that gain nothing from bf16 instructions; `attend_by_example`, which calls it, is the slow twin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orpo.engine.attention import attend_by_example
from orpo.engine.layout import Layout

BLOCK = 64
"""Queries of a block. Smaller blocks waste fewer products above the diagonal, larger ones run at a better rate; 64 and 128 are alike."""

LONGEST_KEPT = 512
"""Keys of a segment up to which its attention weights are kept for the backward pass: a few per cent of a layer's activations. Those of
longer ones would grow with the square of the length, and are made again."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `first`..`last` of the pack, which see `shared` rows from `prefix` before their own; `blocks` of queries.

    A block (start, size, low, high) is queries start..start+size-1 of the segment against keys low..high-1 of shared and own rows.
    """

    first: int
    last: int
    prefix: int
    shared: int
    blocks: tuple[tuple[int, int, int, int], ...]

    @property
    def is_kept(self) -> bool:
        """Whether attention weights wait for the backward pass."""
        return self.shared + self.last - self.first <= LONGEST_KEPT

    def keys(self, rows: Tensor) -> Tensor:
        """What the segment sees of `rows` [kv heads, T, D]."""
        own = rows[:, self.first : self.last]
        return torch.cat([rows[:, self.prefix : self.prefix + self.shared], own], dim=1) if self.shared else own

    def add(self, total: Tensor, part: Tensor, low: int) -> None:
        """Nothing; `total` [kv heads, T, D] gains `part`, which belongs to the segment's keys from `low` on."""
        num_shared = max(self.shared - low, 0)
        if num_shared:
            total[:, self.prefix + low : self.prefix + self.shared] += part[:, :num_shared]
        start = self.first + max(low - self.shared, 0)
        total[:, start : start + part.shape[1] - num_shared] += part[:, num_shared:]


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
        queries, keys, values = _by_group(query, key.shape[1]), key[0].contiguous(), value[0].contiguous()
        num_groups, num_rows, heads_per_group, _ = queries.shape
        out = query.new_empty(num_rows, num_groups, heads_per_group, value.shape[-1])
        kept: list[Tensor] = []
        # Autocast would turn the fp32 products of the scores into bf16 ones.
        with torch.autocast("cpu", enabled=False):
            wide_keys = keys.to(_wide(keys))
            scaled = queries.to(wide_keys.dtype) * scale
            for segment in _segments(layout, window):
                seen, seen_values = segment.keys(wide_keys), segment.keys(values)
                for start, size, low, high in segment.blocks:
                    rows = slice(segment.first + start, segment.first + start + size)
                    weights = _weights(scaled[:, rows], seen[:, low:high], layout, window).to(query.dtype)
                    part = torch.bmm(weights, seen_values[:, low:high])
                    out[rows] = part.view(num_groups, size, heads_per_group, -1).transpose(0, 1)
                    if segment.is_kept:
                        kept.append(weights)
        attended = out.view(1, num_rows, num_groups * heads_per_group, -1)
        ctx.save_for_backward(queries, keys, values, attended, *kept)
        ctx.layout, ctx.scale, ctx.window = layout, scale, window
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return (*_backward(ctx, gradients[0]), None, None, None)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to query, key and value. Sums over blocks and branches are made in fp32, in the order of the pack."""
    queries, keys, values, attended, *kept = ctx.saved_tensors
    dtype, wide = keys.dtype, _wide(keys)
    gradients = _by_group(gradient.transpose(1, 2), len(keys))
    # The scale goes into the gradient once, before anything is rounded.
    scaled = gradients.to(wide) * ctx.scale
    drift = (scaled * _by_group(attended.transpose(1, 2), len(keys))).sum(-1)
    to_query = torch.empty_like(queries)
    to_key, to_value = torch.zeros_like(keys, dtype=wide), torch.zeros_like(values, dtype=wide)
    wide_keys, wide_values, remembered = keys.to(wide), values.to(wide), iter(kept)
    for segment in _segments(ctx.layout, ctx.window):
        seen, wide_seen, wide_seen_values = (segment.keys(rows) for rows in (keys, wide_keys, wide_values))
        for start, size, low, high in segment.blocks:
            rows = slice(segment.first + start, segment.first + start + size)
            if segment.is_kept:
                weights = next(remembered)
            else:
                weights = _weights(queries[:, rows].to(wide) * ctx.scale, wide_seen[:, low:high], ctx.layout, ctx.window)
            to_scores = torch.bmm(scaled[:, rows].flatten(1, 2), wide_seen_values[:, low:high].transpose(1, 2))
            to_scores = to_scores.sub_(drift[:, rows].flatten(1, 2)[..., None]).mul_(weights).to(dtype)
            to_query[:, rows] = torch.bmm(to_scores, seen[:, low:high]).view_as(to_query[:, rows])
            segment.add(to_key, torch.bmm(to_scores.transpose(1, 2), queries[:, rows].flatten(1, 2)), low)
            segment.add(to_value, torch.bmm(weights.to(dtype).transpose(1, 2), gradients[:, rows].flatten(1, 2)), low)
    as_query = to_query.transpose(1, 2).reshape(1, -1, *queries.shape[1::2])
    return as_query, to_key.to(dtype)[None], to_value.to(dtype)[None]


def _weights(scaled: Tensor, keys: Tensor, layout: Layout, window: int | None) -> Tensor:
    """Attention weights [kv heads, size * heads per group, keys], fp32, of scaled queries [kv heads, size, heads per group, D]."""
    _, size, heads_per_group, _ = scaled.shape
    scores = torch.bmm(scaled.flatten(1, 2), keys.transpose(1, 2))
    # Without a window only the corner where queries meet themselves holds anything to hide.
    width = size if window is None else keys.shape[1]
    scores[..., -width:] += _hidden(layout, size, width, window, heads_per_group, scores.dtype)
    return torch.softmax(scores, dim=-1)


def _hidden(layout: Layout, size: int, width: int, window: int | None, heads_per_group: int, dtype: torch.dtype) -> Tensor:
    """[size * heads per group, width] to add to the scores of the last `size` of `width` keys: -inf for what they must not see."""
    name = ("hidden", size, width, window, heads_per_group, dtype)
    if name not in layout.cache:
        behind = torch.arange(width - size, width)[:, None] - torch.arange(width)
        outside = (behind < 0) if window is None else (behind < 0) | (behind >= window)
        bias = torch.zeros(size, width, dtype=dtype).masked_fill_(outside, float("-inf"))
        layout.cache[name] = bias.repeat_interleave(heads_per_group, dim=0)
    hidden: Tensor = layout.cache[name]
    return hidden


def _segments(layout: Layout, window: int | None) -> tuple[Segment, ...]:
    """The segments of the pack in order, found once for all layers."""
    name = ("cpu segments", window)
    if name not in layout.cache:
        layout.cache[name] = tuple(_find_segments(layout, window))
    segments: tuple[Segment, ...] = layout.cache[name]
    return segments


def _find_segments(layout: Layout, window: int | None) -> Iterator[Segment]:
    """A prefix with its first branch, and each further branch: what attention takes together."""
    for example in layout.examples:
        first, shared = example.start, 0
        for last in (start + own for start, own in zip(example.branch_starts, example.branches, strict=True)):
            blocks = []
            for start in range(0, last - first, BLOCK):
                size = min(BLOCK, last - first - start)
                low = 0 if window is None else max(0, shared + start - window + 1)
                blocks.append((start, size, low, shared + start + size))
            yield Segment(first, last, example.start, shared, tuple(blocks))
            first, shared = last, example.prefix


def _by_group(rows: Tensor, num_groups: int) -> Tensor:
    """[1, heads, T, D] as contiguous [groups, T, heads per group, D]: heads that share keys lie side by side."""
    _, num_heads, num_rows, dim = rows.shape
    return rows[0].view(num_groups, num_heads // num_groups, num_rows, dim).transpose(1, 2).contiguous()


def _wide(tensor: Tensor) -> torch.dtype:
    """The dtype of scores: fp32, or fp64 for fp64 inputs."""
    return torch.promote_types(tensor.dtype, torch.float32)

"""Attention over a pack in one variable-length call: queries as they lie, keys and values gathered to what each segment sees.

A segment is a prefix with its first branch, or a further branch. Such a call aligns its causal mask at the bottom right: the last query
of a segment sees all of its keys, so a further branch sees its prefix because those keys stand before its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orpo.engine.layout import Layout, PackedExample, Positions

VarlenFunction = Callable[..., Any]
"""(query [T, heads, D], key and value [keys, kv heads, D], int32 ends of queries and of keys with 0 before them, longest of each, *,
scale, window_size=(left, right) besides the token itself) -> [T, heads, D], causal at the bottom right."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Copies of rows. Copy c is of row `sources[c]`; the first copy of row t is `first[t]`; `further` lists the other copies.

    In each of `further`, (rows, copies), no row stands twice.
    """

    sources: Tensor
    first: Tensor
    further: tuple[tuple[Tensor, Tensor], ...]

    def to(self, device: torch.device) -> Gather:
        """The same on `device`."""
        further = tuple((rows.to(device), copies.to(device)) for rows, copies in self.further)
        return Gather(self.sources.to(device), self.first.to(device), further)


@dataclass(frozen=True, slots=True)
class Segments:
    """Where segments end among queries and among keys, int32 [segments + 1] from 0, the longest of each, and how keys are gathered.

    `gather` is None where every segment sees just itself.
    """

    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int
    gather: Gather | None

    def to(self, device: torch.device) -> Segments:
        """The same on `device`."""
        gather = self.gather.to(device) if self.gather is not None else None
        return Segments(self.query_ends.to(device), self.key_ends.to(device), self.longest_query, self.longest_key, gather)


def attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, scale: float, window: int | None, function: VarlenFunction, **options: Any
) -> Tensor:
    """Attention [1, T, heads, D] of a pack; query [1, heads, T, D]. `options` go to `function`."""
    segments = _cached_segments(layout, query.device)
    rows, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if segments.gather is not None:
        keys, values = gathered(keys, segments.gather), gathered(values, segments.gather)
    # A window of w tokens counts the token itself; these functions count the tokens to its left.
    window_size = (-1 if window is None else window - 1, 0)
    ends, longest = (segments.query_ends, segments.key_ends), (segments.longest_query, segments.longest_key)
    attended: Tensor = function(rows, keys, values, *ends, *longest, scale=scale, window_size=window_size, **options)
    return attended[None]


def gathered(rows: Tensor, gather: Gather) -> Tensor:
    """Copies [copies, ...] of `rows` [T, ...], with a backward that gives the same bits every time."""
    copies: Tensor = _GatherRows.apply(rows, gather)  # type: ignore[no-untyped-call]
    return copies


def segments_of(layout: Layout) -> Segments:
    """The segments of `layout`, on the CPU."""
    places = [place for example in layout.examples for place in _places(example)]
    num_queries = [own for _, own, _ in places]
    num_keys = [shared + own for _, own, shared in places]
    gather = _gather(layout) if num_queries != num_keys else None
    return Segments(_ends(num_queries), _ends(num_keys), max(num_queries), max(num_keys), gather)


class _GatherRows(torch.autograd.Function):
    """index_select, but the gradients of a row's copies are added in a fixed order.

    index_select's own backward adds all copies at once with atomics, in whichever order they come: in bf16 two equal runs then differ.
    Here the first copy's gradient is copied, and each pass over `further` adds at most one gradient to a row.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gather: Gather) -> Tensor:
        ctx.gather = gather
        return rows.index_select(0, gather.sources)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].index_select(0, ctx.gather.first)
        for rows, copies in ctx.gather.further:
            total.index_add_(0, rows, gradients[0].index_select(0, copies))
        return total, None


def _cached_segments(layout: Layout, device: torch.device) -> Segments:
    """`segments_of(layout)` on `device`, built once for all layers."""
    name = ("segments", device)
    if name not in layout.cache:
        layout.cache[name] = segments_of(layout).to(device)
    segments: Segments = layout.cache[name]
    return segments


def _places(example: PackedExample) -> list[tuple[int, int, int]]:
    """(first row, rows, rows of the prefix that it sees besides) of each segment."""
    first = (example.start, example.prefix + example.branches[0], 0)
    starts = example.branch_starts[1:]
    return [first, *((start, own, example.prefix) for start, own in zip(starts, example.branches[1:], strict=True))]


def _gather(layout: Layout) -> Gather:
    """How keys are copied: each segment's own rows once, and the prefix again before each further branch."""
    sources: list[Positions] = []
    first = np.empty(layout.num_rows, dtype=np.int64)
    further: dict[int, list[tuple[Positions, Positions]]] = {}
    num = 0
    for example in layout.examples:
        prefix = np.arange(example.start, example.start + example.prefix)
        for branch, (start, own, shared) in enumerate(_places(example)):
            rows = np.arange(start, start + own)
            first[rows] = np.arange(num + shared, num + shared + own)
            if shared:
                further.setdefault(branch, []).append((prefix, np.arange(num, num + shared)))
            sources += [prefix[:shared], rows]
            num += shared + own
    passes = [tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*further[branch], strict=True)) for branch in sorted(further)]
    return Gather(torch.from_numpy(np.concatenate(sources)), torch.from_numpy(first), tuple((rows, copies) for rows, copies in passes))


def _ends(sizes: list[int]) -> Tensor:
    """0 and where each of `sizes` ends, int32."""
    return torch.tensor(list(accumulate(sizes, initial=0)), dtype=torch.int32)

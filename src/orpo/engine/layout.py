"""How examples lie on one row: a shared prefix once, then its branches. Tokenized examples enter, a PackedBatch leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orpo.core.tokens import TokenizedExample

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PackedExample:
    """Rows of one example: `prefix` of them from `start`, then those of each branch. Without sharing the prefix is 0."""

    start: int
    prefix: int
    branches: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        """Rows of the pack that this example takes."""
        return self.prefix + sum(self.branches)

    @property
    def branch_starts(self) -> tuple[int, ...]:
        """The first row of each branch."""
        return tuple(accumulate(self.branches[:-1], initial=self.start + self.prefix))


@dataclass(frozen=True, slots=True)
class Layout:
    """The examples of a pack, in order, without gaps. `cache` keeps what attention builds once and all layers use."""

    examples: tuple[PackedExample, ...]
    cache: dict[Any, Any] = field(default_factory=dict, compare=False)

    @property
    def num_rows(self) -> int:
        """Rows of the pack."""
        return sum(example.num_rows for example in self.examples)

    @property
    def longest(self) -> int:
        """The longest sequence that a query can look back on: a prefix and one branch."""
        return max(example.prefix + max(example.branches) for example in self.examples)


@dataclass(frozen=True, slots=True)
class HeadTable:
    """Which log-probs are needed and what they add up to.

    Log-prob m is that of token `targets[m]` predicted by row `rows[m]` of the pack. Sum `entry_sums[e]` gains log-prob
    `entry_rows[e]`: a token that several completions share counts in each of them. Sums are numbered by example: its
    completions in order, then its prompt. The log-probs of example i end at `ends[i]`, its entries at `entry_ends[i]`.
    """

    rows: Tensor
    targets: Tensor
    entry_rows: Tensor
    entry_sums: Tensor
    num_sums: int
    ends: tuple[int, ...]
    entry_ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Many examples on one row of T tokens: ids and positions [1, T], how they lie, and what is asked of the head."""

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout
    table: HeadTable

    def to(self, device: torch.device) -> PackedBatch:
        """The same on `device`."""
        table = self.table
        moved = HeadTable(
            rows=table.rows.to(device),
            targets=table.targets.to(device),
            entry_rows=table.entry_rows.to(device),
            entry_sums=table.entry_sums.to(device),
            num_sums=table.num_sums,
            ends=table.ends,
            entry_ends=table.entry_ends,
        )
        return PackedBatch(self.input_ids.to(device), self.position_ids.to(device), self.layout, moved)


def common_prefix(example: TokenizedExample) -> int:
    """Tokens that all rows of `example` begin with: its prompt and what its completions share, but each keeps a token of its own."""
    shortest = min(len(completion) for completion in example.completions)
    first = example.completions[0][: shortest - 1]
    agree = np.ones(len(first), dtype=bool)
    for completion in example.completions[1:]:
        agree &= first == completion[: shortest - 1]
    return len(example.prompt_ids) + (len(first) if agree.all() else int(agree.argmin()))


def pack(examples: Sequence[TokenizedExample], *, sharing: bool = True, with_prompt: bool = True) -> PackedBatch:
    """`examples` on one row, on the CPU; prompts once when `sharing`. The prompt's own log-probs are asked for when `with_prompt`.

    Examples may differ in their number of completions. The last row of a prefix predicts the first token of every branch.
    """
    packed: list[PackedExample] = []
    parts = _Parts()
    start = num_sums = 0
    for example in examples:
        prefix = common_prefix(example) if sharing else 0
        rows = [np.concatenate([example.prompt_ids, completion]).astype(np.int64) for completion in example.completions]
        place = PackedExample(start, prefix, tuple(len(row) - prefix for row in rows))
        parts.add(place, rows, num_prompt=len(example.prompt_ids), first_sum=num_sums, with_prompt=with_prompt)
        packed.append(place)
        start += place.num_rows
        num_sums += len(rows) + 1
    return parts.batch(Layout(tuple(packed)), num_sums=num_sums)


class _Parts:
    """The arrays of a pack while it is put together."""

    def __init__(self) -> None:
        self.ids: list[Positions] = []
        self.positions: list[Positions] = []
        self.rows: list[Positions] = []
        self.targets: list[Positions] = []
        self.entry_rows: list[Positions] = []
        self.entry_sums: list[Positions] = []
        self.ends: list[int] = []
        self.entry_ends: list[int] = []
        self.num = self.num_entries = 0

    def add(self, place: PackedExample, rows: list[Positions], *, num_prompt: int, first_sum: int, with_prompt: bool) -> None:
        """One example. Its sums are numbered from `first_sum`: completions, then the prompt."""
        completions = range(first_sum, first_sum + len(rows))
        prefix = place.prefix
        self.ids += [rows[0][:prefix], *(row[prefix:] for row in rows)]
        self.positions += [np.arange(prefix), *(np.arange(prefix, len(row)) for row in rows)]
        if with_prompt:
            self._ask(rows[0], place.start, 1, min(num_prompt, prefix), sums=[completions.stop])
        self._ask(rows[0], place.start, num_prompt, prefix, sums=list(completions))
        for k, (row, start) in enumerate(zip(rows, place.branch_starts, strict=True)):
            if prefix:
                self._ask(row, place.start, prefix, prefix + 1, sums=[completions[k]])
            own = start - prefix  # token t of this branch stands in row own + t
            if with_prompt and k == 0:
                self._ask(row, own, max(prefix + 1, 1), num_prompt, sums=[completions.stop])
            self._ask(row, own, max(prefix + 1, num_prompt), len(row), sums=[completions[k]])
        self.ends.append(self.num)
        self.entry_ends.append(self.num_entries)

    def _ask(self, row: Positions, origin: int, first: int, last: int, *, sums: list[int]) -> None:
        """Ask for the log-probs of tokens first..last-1 of `row`, token t predicted by row origin + t - 1 of the pack."""
        num = last - first
        if num <= 0:
            return
        self.rows.append(np.arange(origin + first - 1, origin + last - 1))
        self.targets.append(row[first:last])
        for number in sums:
            self.entry_rows.append(np.arange(self.num, self.num + num))
            self.entry_sums.append(np.full(num, number))
            self.num_entries += num
        self.num += num

    def batch(self, layout: Layout, *, num_sums: int) -> PackedBatch:
        """What was added, as tensors."""
        rows, targets, entry_rows, entry_sums = (
            torch.from_numpy(np.concatenate(part)) for part in (self.rows, self.targets, self.entry_rows, self.entry_sums)
        )
        table = HeadTable(rows, targets, entry_rows, entry_sums, num_sums, tuple(self.ends), tuple(self.entry_ends))
        ids, positions = (torch.from_numpy(np.concatenate(part))[None] for part in (self.ids, self.positions))
        return PackedBatch(ids, positions, layout, table)

"""Which pairs make a step, and how a step is cut into micro-batches. Pure functions of lengths, seed, and step.

The learning batch is a number of pairs; the memory batch a number of tokens. The cut never changes what a step computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import ceil

import numpy as np

from orpo.core.tokens import TokenizedExample

NUM_CUT = 256
"""How many of the largest steps are cut when the largest micro-batch is looked for."""


def steps_per_epoch(num_pairs: int, pairs_per_step: int) -> int:
    """Optimizer steps in one pass over the data; the last may hold fewer pairs, and is normalised by what it holds."""
    return ceil(num_pairs / pairs_per_step)


@lru_cache(maxsize=2)
def epoch_order(num_pairs: int, *, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The order in which epoch `epoch` visits the pairs: a function of (seed, epoch) alone, the same on every rank and after a resume."""
    order = np.random.default_rng([seed, epoch]).permutation(num_pairs)
    order.flags.writeable = False  # it is shared by all steps of the epoch
    return order


def step_pairs(num_pairs: int, pairs_per_step: int, *, seed: int, step: int) -> list[int]:
    """Indices of the pairs of optimizer step `step` (0-based, over the whole run)."""
    epoch, position = divmod(step, steps_per_epoch(num_pairs, pairs_per_step))
    order = epoch_order(num_pairs, seed=seed, epoch=epoch)
    return [int(index) for index in order[position * pairs_per_step : (position + 1) * pairs_per_step]]


def pairs_before(num_pairs: int, pairs_per_step: int, *, seed: int, step: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How often each pair was visited before optimizer step `step`: [num_pairs]."""
    epochs, position = divmod(step, steps_per_epoch(num_pairs, pairs_per_step))
    visits = np.full(num_pairs, epochs, dtype=np.int64)
    visits[epoch_order(num_pairs, seed=seed, epoch=epochs)[: position * pairs_per_step]] += 1
    return visits


def micro_batches(lengths: Sequence[int], budget: int, *, num_ranks: int = 1) -> list[list[list[int]]]:
    """For each rank its micro-batches, each a list of positions in `lengths`: best-fit-decreasing under `budget` tokens.

    Every rank gets the same number of micro-batches (some may be empty), the largest first, so that running out of memory shows at once.
    A pair longer than the budget gets a micro-batch of its own; the caller refuses such a budget before training.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [b for b in range(len(bins)) if room[b] >= lengths[position]]
        if fitting:
            best = min(fitting, key=lambda b: (room[b], b))
            bins[best].append(position)
            room[best] -= lengths[position]
        else:
            bins.append([position])
            room.append(budget - lengths[position])
    bins = _split_for_ranks(bins, num_ranks)
    bins.sort(key=lambda members: -sum(lengths[i] for i in members))
    return [bins[rank::num_ranks] for rank in range(num_ranks)]


def in_order(examples: Iterable[TokenizedExample], budget: int) -> Iterator[list[TokenizedExample]]:
    """`examples` in their order, as many at a time as `budget` tokens take, at least one."""
    batch: list[TokenizedExample] = []
    tokens = 0
    for example in examples:
        if batch and tokens + example.num_tokens > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(example)
        tokens += example.num_tokens
    if batch:
        yield batch


def heaviest_cut(
    lengths: Sequence[int], pairs_per_step: int, budget: int, *, seed: int, steps: range, num_ranks: int = 1
) -> list[list[int]]:
    """The micro-batches (indices of pairs) of the rank and step, of `steps`, that hold the one with the most tokens: it comes first.

    A step that fits the budget whole is a single micro-batch (of one rank); of the steps that do not, only the largest are cut to see.
    """
    sizes = np.asarray(lengths)
    per_epoch = steps_per_epoch(len(lengths), pairs_per_step)
    totals = np.full(len(steps), 0, dtype=np.int64)
    for epoch in range(steps.start // per_epoch, -(-steps.stop // per_epoch)):
        order = epoch_order(len(lengths), seed=seed, epoch=epoch)
        sums = np.add.reduceat(sizes[order], np.arange(0, len(order), pairs_per_step))
        first = max(steps.start, epoch * per_epoch)
        last = min(steps.stop, (epoch + 1) * per_epoch)
        totals[first - steps.start : last - steps.start] = sums[first - epoch * per_epoch : last - epoch * per_epoch]
    heaviest: list[list[int]] = [[]]

    def first_tokens(cut: list[list[int]]) -> int:
        return sum(lengths[i] for i in cut[0])

    for position in np.argsort(-totals, kind="stable")[:NUM_CUT]:
        if totals[position] <= first_tokens(heaviest):
            break
        members = step_pairs(len(lengths), pairs_per_step, seed=seed, step=steps.start + int(position))
        ranks = micro_batches([lengths[i] for i in members], budget, num_ranks=num_ranks)
        for bins in ranks:
            heaviest = max(heaviest, [[members[i] for i in batch] for batch in bins], key=first_tokens)
    return heaviest


def _split_for_ranks(bins: list[list[int]], num_ranks: int) -> list[list[int]]:
    """`bins` with the fullest ones split, or empty ones added, until their number is a multiple of `num_ranks`."""
    bins = list(bins)
    while len(bins) % num_ranks:
        fullest = max(range(len(bins)), key=lambda b: len(bins[b]))
        if len(bins[fullest]) < 2:
            bins.append([])
            continue
        members = bins.pop(fullest)
        bins += [members[0::2], members[1::2]]
    return bins

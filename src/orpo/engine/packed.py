"""From a pack to sums: its hidden states, and then only the log-probs that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from orpo.core.tokens import TokenizedExample
from orpo.engine.attention import LAYOUT
from orpo.engine.body import layer_stack
from orpo.engine.head import Hint, token_logps
from orpo.engine.head_of import head_of
from orpo.engine.layout import HeadTable, PackedBatch

SumsShare = Callable[[Tensor, slice], Tensor]
"""The sums of some of a pack's examples, and which -> their share of a step's loss, a scalar."""

CHUNK_BYTES = 2**26
"""fp32 logits that are alive at a time: at 64 MiB products run at their full rate on a CPU, and little memory is gained by fewer."""

MOST_CHUNK_BYTES = {"cpu": 3 * 2**27, "cuda": 2**31}
"""How far a chunk may grow so that the longest pair goes into it whole and the head makes its gradients in one pass."""


def chunk_bytes_for(longest: int, vocabulary: int, device: str) -> int:
    """fp32 logits to hold at a time for pairs of up to `longest` distinct tokens: all of such a pair's, within limits."""
    return max(CHUNK_BYTES, min(4 * longest * vocabulary, MOST_CHUNK_BYTES.get(device, MOST_CHUNK_BYTES["cpu"])))


def packed_hidden(causal: Any, batch: PackedBatch) -> Tensor:
    """Hidden states [T, H] of a pack, after the last norm. `causal` attends over packs (engine/body.py)."""
    stack = layer_stack(causal)
    output = stack(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **{LAYOUT: batch.layout})
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def packed_sums(
    causal: Any,
    batch: PackedBatch,
    hidden: Tensor,
    *,
    examples: Sequence[TokenizedExample],
    chunk_bytes: int,
    share: SumsShare | None = None,
) -> Tensor:
    """The sums of the pack's `examples` as engine/views.py numbers them, fp64, from its hidden states [T, H]; those not asked for are 0.

    `share` only says which gradient is to be expected: values and gradients do not depend on it.
    """
    hidden = hidden.index_select(0, batch.table.rows)
    hint = _hint(batch.table, examples, share) if share is not None and torch.is_grad_enabled() else None
    logps = token_logps(hidden, head_of(causal), batch.table.targets, chunk_bytes=chunk_bytes, hint=hint)
    table = batch.table
    return logps.new_zeros(table.num_sums, dtype=torch.float64).index_add(0, table.entry_sums, logps[table.entry_rows].double())


def _hint(table: HeadTable, examples: Sequence[TokenizedExample], share: SumsShare) -> Hint:
    """What the head needs to make its gradients in the forward pass: the derivative of the loss to each log-prob, group by group."""
    starts = dict(pairwise((0, *table.ends)))
    first_example = {start: index for index, start in enumerate(starts)}
    entry_starts = (0, *table.entry_ends)
    sum_starts = list(accumulate((len(example.completions) + 1 for example in examples), initial=0))

    def coefficients(logps: Tensor, first: int, last: int) -> Tensor:
        begin = first_example[first]
        end = table.ends.index(last, begin) + 1
        entries = slice(entry_starts[begin], entry_starts[end])
        rows, numbers = table.entry_rows[entries] - first, table.entry_sums[entries] - sum_starts[begin]
        with torch.enable_grad():
            num = sum_starts[end] - sum_starts[begin]
            sums = logps.new_zeros(num, dtype=torch.float64).index_add(0, numbers, logps[rows].double())
            sums.requires_grad_()
            (by_sum,) = torch.autograd.grad(share(sums, slice(begin, end)), sums)
        return torch.zeros_like(logps).index_add(0, rows, by_sum[numbers].to(logps.dtype))

    return Hint(table.ends, coefficients)

"""From examples to log-probs: a pack, its hidden states, and then only the log-probs that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.tokens import TokenizedExample
from orpo.engine.attention import LAYOUT
from orpo.engine.body import layer_stack
from orpo.engine.head import Hint, token_logps
from orpo.engine.head_of import head_of
from orpo.engine.layout import HeadTable, PackedBatch

Share = Callable[[PairLogps], Tensor]
"""Log-probs of some pairs -> their share of a step's loss, a scalar. A sum over pairs, or the head makes its gradients later."""


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


def packed_pair_logps(
    causal: Any,
    batch: PackedBatch,
    hidden: Tensor,
    *,
    examples: Sequence[TokenizedExample],
    with_prompt: bool,
    chunk_bytes: int,
    share: Share | None = None,
) -> PairLogps:
    """Sums (fp64 [P]) and token counts of each pair, from the hidden states [T, H] of its pack; `prompt` is None unless `with_prompt`.

    `share` only says which gradient is to be expected: values and gradients do not depend on it.
    """
    hidden = hidden.index_select(0, batch.table.rows)
    hint = _hint(batch.table, examples, share, with_prompt=with_prompt) if share is not None and torch.is_grad_enabled() else None
    logps = token_logps(hidden, head_of(causal), batch.table.targets, chunk_bytes=chunk_bytes, hint=hint)
    return pair_sums(_sums(batch.table, logps), examples, with_prompt=with_prompt)


def pair_sums(sums: Tensor, examples: Sequence[TokenizedExample], *, with_prompt: bool) -> PairLogps:
    """`sums` [3 P] (chosen, rejected and prompt of each pair in turn) with the token counts of `examples`."""
    chosen, rejected, prompt = sums.view(-1, 3).unbind(1)
    counts = [[len(e.completions[0]), len(e.completions[1]), len(e.prompt_ids) - 1] for e in examples]
    num_chosen, num_rejected, num_prompt = torch.tensor(counts, dtype=sums.dtype, device=sums.device).unbind(1)
    return PairLogps(
        chosen=CompletionLogps(chosen, num_chosen),
        rejected=CompletionLogps(rejected, num_rejected),
        prompt=CompletionLogps(prompt, num_prompt) if with_prompt else None,
    )


def _sums(table: HeadTable, logps: Tensor) -> Tensor:
    """Sum over the entries of `table` of fp32 log-probs [M], in fp64: [num_sums]."""
    return logps.new_zeros(table.num_sums, dtype=torch.float64).index_add(0, table.entry_sums, logps[table.entry_rows].double())


def _hint(table: HeadTable, examples: Sequence[TokenizedExample], share: Share, *, with_prompt: bool) -> Hint:
    """What the head needs to make its gradients in the forward pass: the derivative of the loss to each log-prob, group by group."""
    starts = dict(pairwise((0, *table.ends)))
    first_example = {start: index for index, start in enumerate(starts)}
    entry_starts = (0, *table.entry_ends)
    per_example = table.num_sums // len(examples)

    def coefficients(logps: Tensor, first: int, last: int) -> Tensor:
        begin = first_example[first]
        end = table.ends.index(last, begin) + 1
        entries = slice(entry_starts[begin], entry_starts[end])
        rows, numbers = table.entry_rows[entries] - first, table.entry_sums[entries] - begin * per_example
        with torch.enable_grad():
            sums = logps.new_zeros((end - begin) * per_example, dtype=torch.float64).index_add(0, numbers, logps[rows].double())
            sums.requires_grad_()
            loss = share(pair_sums(sums, examples[begin:end], with_prompt=with_prompt))
            (by_sum,) = torch.autograd.grad(loss, sums)
        return torch.zeros_like(logps).index_add(0, rows, by_sum[numbers].to(logps.dtype))

    return Hint(table.ends, coefficients)

"""The slow, obvious engine: every row alone, unpadded, through the model's own forward. The oracle for every faster path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orpo.core.logps import PairLogps
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.engine.views import logps_of

RowLogps = Callable[[Any, TokenIds, TokenIds], Tensor]
"""(model, prompt, completion) -> log-probs of all tokens of the row but its first."""


def row_logps(model: nn.Module, prompt_ids: TokenIds, completion_ids: TokenIds) -> Tensor:
    """log p of each token of one row but its first, given those before it: [P + C - 1], fp32, nats.

    One unpadded row needs no attention mask and no position ids, so nothing here can differ from the model's own forward.
    """
    device = next(model.parameters()).device
    row = torch.from_numpy(np.concatenate([prompt_ids, completion_ids]).astype(np.int64)).to(device)
    logits = model(input_ids=row[None], use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits, dim=-1).gather(-1, row[1:, None]).squeeze(-1)


def row_sums(model: nn.Module, examples: Sequence[TokenizedExample], *, row: RowLogps | None = None) -> Tensor:
    """Summed log-probs of all completions and prompts, fp64, as engine/views.py numbers them. At least one example.

    `row` may compute a row's log-probs in another way. The prompt's own are taken from the first row; all rows give the same, for
    attention is causal.
    """
    sums: list[Tensor] = []
    for example in examples:
        rows = [(row or row_logps)(model, example.prompt_ids, completion) for completion in example.completions]
        predicted = len(example.prompt_ids) - 1
        sums += [logps[predicted:].double().sum() for logps in rows]
        sums.append(rows[0][:predicted].double().sum())
    return torch.stack(sums)


def pair_logps(
    model: nn.Module, examples: Sequence[TokenizedExample], *, with_prompt: bool = True, row: RowLogps | None = None
) -> PairLogps:
    """Summed log-probs (fp64 [P]) and token counts of chosen, rejected and prompt for each pair; `prompt` is None unless `with_prompt`."""
    logps = logps_of(row_sums(model, examples, row=row), examples, reads="pairs", with_prompt=with_prompt)
    assert isinstance(logps, PairLogps), "pairs were asked for"
    return logps

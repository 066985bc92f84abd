"""The slow, obvious engine: every row alone, unpadded, through the model's own forward. The oracle for every faster path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.tokens import TokenIds, TokenizedExample

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


def pair_logps(
    model: nn.Module, examples: Sequence[TokenizedExample], *, with_prompt: bool = True, row: RowLogps | None = None
) -> PairLogps:
    """Summed log-probs (fp64 [P]) and token counts of chosen, rejected and prompt for each pair. At least one pair.

    `prompt` is None unless `with_prompt`; `row` may compute a row's log-probs in another way. The prompt's own log-probs are taken
    from the chosen row; both rows give the same, for attention is causal.
    """
    sums: list[tuple[Tensor, Tensor, Tensor]] = []
    for example in examples:
        chosen, rejected = ((row or row_logps)(model, example.prompt_ids, completion) for completion in example.completions)
        predicted = len(example.prompt_ids) - 1
        sums.append((chosen[predicted:].double().sum(), rejected[predicted:].double().sum(), chosen[:predicted].double().sum()))
    chosen_total, rejected_total, prompt_total = (torch.stack(column) for column in zip(*sums, strict=True))
    prompt = CompletionLogps(prompt_total, _counts(prompt_total, [len(e.prompt_ids) - 1 for e in examples]))
    return PairLogps(
        chosen=CompletionLogps(chosen_total, _counts(chosen_total, [len(e.completions[0]) for e in examples])),
        rejected=CompletionLogps(rejected_total, _counts(rejected_total, [len(e.completions[1]) for e in examples])),
        prompt=prompt if with_prompt else None,
    )


def _counts(like: Tensor, counts: list[int]) -> Tensor:
    return torch.tensor(counts, dtype=like.dtype, device=like.device)

"""Replies to prompts, greedily, so that before and after differ by training alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from orpo.core.tokens import TokenIds


@dataclass(frozen=True, slots=True)
class Reply:
    """A generated reply without its end token; `has_ended` is False when it was cut at the token limit."""

    text: str
    num_tokens: int
    has_ended: bool


def greedy_replies(
    body: Any, tokenizer: Any, prompts: Sequence[TokenIds], *, max_new_tokens: int, prompts_per_batch: int = 16
) -> list[Reply]:
    """One greedy reply per prompt, in order. Prompts are padded on the left, so that every reply starts right after its prompt."""
    was_training = body.training
    body.eval()
    replies: list[Reply] = []
    for start in range(0, len(prompts), prompts_per_batch):
        replies += _batch_replies(body, tokenizer, prompts[start : start + prompts_per_batch], max_new_tokens=max_new_tokens)
    body.train(was_training)
    return replies


def _batch_replies(body: Any, tokenizer: Any, prompts: Sequence[TokenIds], *, max_new_tokens: int) -> list[Reply]:
    device = next(body.parameters()).device
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype("int64"))
        mask[row, longest - len(prompt) :] = 1
    with torch.no_grad():
        output = body.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted(end_ids(body, tokenizer)),
        )
    return [_reply(row[longest:].tolist(), tokenizer, end_ids(body, tokenizer)) for row in output]


def end_ids(body: Any, tokenizer: Any) -> set[int]:
    """Ids that end a reply: the tokenizer's end of sequence and those of the model's generation config."""
    configured = body.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *([configured] if isinstance(configured, int) else configured or [])}


def _reply(ids: list[int], tokenizer: Any, ends: set[int]) -> Reply:
    length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return Reply(tokenizer.decode(ids[:length], skip_special_tokens=True), length, length < len(ids))

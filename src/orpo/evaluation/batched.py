"""Replies to many prompts, a batch at a time: prompts with keys enter, replies leave as they are done, the longest prompts first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from orpo.core.tokens import TokenIds
from orpo.evaluation.generation import Reply, batch_replies, positions_left
from orpo.evaluation.sampling import Key, Sampling

Done = tuple[int, Reply]
"""The place of a prompt among those given, and its reply."""


def replies_by_batch(
    body: Any, tokenizer: Any, prompts: Sequence[TokenIds], keys: Sequence[Key], sampling: Sampling, *, batch_size: int
) -> Iterator[list[Done]]:
    """All replies. Prompts of like length share a batch; the longest go first, so that memory that does not suffice shows at once.

    A prompt that leaves no position for a reply gets an empty one.
    """
    limits = [min(sampling.max_new_tokens, positions_left(body, prompt)) for prompt in prompts]
    full = [index for index, limit in enumerate(limits) if limit <= 0]
    if full:
        yield [(index, Reply("", 0, has_ended=False)) for index in full]
    device = next(body.parameters()).device
    for batch in _batches([len(prompt) for prompt in prompts], limits, batch_size):
        choice = sampling.choice([keys[index] for index in batch], device)
        made = batch_replies(body, tokenizer, [prompts[index] for index in batch], choice, max_new_tokens=limits[batch[0]])
        yield list(zip(batch, made, strict=True))


def _batches(lengths: Sequence[int], limits: Sequence[int], size: int) -> Iterator[list[int]]:
    """Places of prompts with the same limit, `size` at a time, sorted by length."""
    order = sorted((index for index, limit in enumerate(limits) if limit > 0), key=lambda index: (limits[index], -lengths[index]))
    for _, members in groupby(order, key=lambda index: limits[index]):
        group = list(members)
        yield from (group[start : start + size] for start in range(0, len(group), size))

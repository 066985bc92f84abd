"""Replies to prompts: greedy ones, so that before and after differ by training alone, and seeded samples, to see how replies vary."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from orpo.core.tokens import TokenIds

GREEDY: Mapping[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    **dict.fromkeys(
        (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "min_new_tokens",
            "max_length",
            "guidance_scale",
            "suppress_tokens",
            "begin_suppress_tokens",
            "bad_words_ids",
            "forced_eos_token_id",
        )
    ),
}
"""A model's own generation_config.json may ask for sampling or penalties; these take its place, so that the likeliest token is taken."""

SAMPLED: Mapping[str, Any] = {**GREEDY, "do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
"""In place of GREEDY: every token by its own probability, none cut off."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A generated reply without its end token; `has_ended` is False when it was cut, at the token limit or the model's last position."""

    text: str
    num_tokens: int
    has_ended: bool


def greedy_replies(
    body: Any, tokenizer: Any, prompts: Sequence[TokenIds], *, max_new_tokens: int, prompts_per_batch: int = 16
) -> list[Reply]:
    """One greedy reply per prompt, in order. Prompts are padded on the left, so that every reply starts right after its prompt.

    A reply has at most `max_new_tokens` tokens and ends at the model's last position; a prompt that leaves none gets an empty one.
    """
    return _replies(body, tokenizer, prompts, GREEDY, max_new_tokens=max_new_tokens, prompts_per_batch=prompts_per_batch)


def sampled_replies(
    body: Any, tokenizer: Any, prompts: Sequence[TokenIds], *, num: int, seed: int, max_new_tokens: int, prompts_per_batch: int = 16
) -> list[list[Reply]]:
    """`num` replies per prompt, in order, drawn at temperature 1: the same for the same seed and batch size on the same machine.

    Otherwise as `greedy_replies`. The random numbers of the caller are left as they were.
    """
    device = next(body.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        repeated = [prompt for prompt in prompts for _ in range(num)]
        drawn = _replies(body, tokenizer, repeated, SAMPLED, max_new_tokens=max_new_tokens, prompts_per_batch=prompts_per_batch)
    return [drawn[start : start + num] for start in range(0, len(drawn), num)]


def _replies(
    body: Any,
    tokenizer: Any,
    prompts: Sequence[TokenIds],
    choice: Mapping[str, Any],
    *,
    max_new_tokens: int,
    prompts_per_batch: int,
) -> list[Reply]:
    """One reply per prompt; `choice` says how the next token is chosen."""
    limits = [min(max_new_tokens, positions_left(body, prompt)) for prompt in prompts]
    replies = {index: Reply("", 0, has_ended=False) for index, limit in enumerate(limits) if limit <= 0}
    was_training = body.training
    body.eval()
    try:
        for limit in sorted({limit for limit in limits if limit > 0}, reverse=True):
            members = [index for index, own in enumerate(limits) if own == limit]
            for start in range(0, len(members), prompts_per_batch):
                batch = members[start : start + prompts_per_batch]
                made = batch_replies(body, tokenizer, [prompts[index] for index in batch], choice, max_new_tokens=limit)
                replies |= dict(zip(batch, made, strict=True))
    finally:
        body.train(was_training)
    return [replies[index] for index in range(len(prompts))]


def positions_left(body: Any, prompt: TokenIds) -> int:
    """How many tokens fit behind `prompt`; without a limit in the model's config, as many as anyone asks for."""
    positions = getattr(body.config.get_text_config(), "max_position_embeddings", None)
    return sys.maxsize if positions is None else int(positions) - len(prompt)


def batch_replies(body: Any, tokenizer: Any, prompts: Sequence[TokenIds], choice: Mapping[str, Any], *, max_new_tokens: int) -> list[Reply]:
    device = next(body.parameters()).device
    longest = max(len(prompt) for prompt in prompts)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype("int64"))
        mask[row, longest - len(prompt) :] = 1
    with torch.no_grad():
        output = body.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=max_new_tokens,
            **choice,
            pad_token_id=pad,
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

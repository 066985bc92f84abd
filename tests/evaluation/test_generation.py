"""Greedy replies against a loop that takes the likeliest token, one at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.tokens import TokenIds
from orpo.evaluation.generation import Reply, end_ids, greedy_replies


def prompts(*lengths: int, seed: int = 0) -> list[TokenIds]:
    draw = np.random.default_rng(seed)
    return [draw.integers(2, 512, size=length).astype(np.int32) for length in lengths]


def argmax_ids(body: Any, prompt: TokenIds, num: int, ends: set[int]) -> list[int]:
    """Up to `num` tokens, each the likeliest after all before it; an end token is the last."""
    ids: list[int] = prompt.tolist()
    body.eval()
    while len(ids) < len(prompt) + num:
        with torch.no_grad():
            ids.append(int(body(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


def expected(body: Any, tokenizer: Any, prompt: TokenIds, num: int) -> Reply:
    ends = end_ids(body, tokenizer)
    ids = argmax_ids(body, prompt, num, ends)
    has_ended = bool(ids) and ids[-1] in ends
    kept = ids[:-1] if has_ended else ids
    return Reply(tokenizer.decode(kept, skip_special_tokens=True), len(kept), has_ended)


def test_a_reply_is_the_likeliest_token_at_every_step_whatever_the_batch(body: Any, tokenizer: Any) -> None:
    asked = prompts(3, 17, 1, 9, 30)
    replies = greedy_replies(body, tokenizer, asked, max_new_tokens=7, prompts_per_batch=3)
    assert body.training, "the model's mode is put back"
    assert replies == [expected(body, tokenizer, prompt, 7) for prompt in asked]
    assert [reply.num_tokens for reply in replies] == [7] * 5
    assert not any(reply.has_ended for reply in replies)
    assert len({reply.text for reply in replies}) == 5
    alone = [greedy_replies(body, tokenizer, [prompt], max_new_tokens=7)[0] for prompt in asked]
    assert replies == alone


def test_no_prompts_have_no_replies(body: Any, tokenizer: Any) -> None:
    assert greedy_replies(body, tokenizer, [], max_new_tokens=5) == []


def test_a_reply_stops_at_an_end_token_and_the_others_go_on(body: Any, tokenizer: Any) -> None:
    # Whatever the first prompt's third token is, it ends replies from now on.
    asked = prompts(4, 11, seed=1)
    ids = argmax_ids(body, asked[0], 6, set())
    stop = ids[2]
    body.generation_config.eos_token_id = [tokenizer.eos_token_id, stop]
    assert end_ids(body, tokenizer) == {tokenizer.eos_token_id, stop}
    replies = greedy_replies(body, tokenizer, asked, max_new_tokens=6)
    assert replies[0].has_ended
    assert replies[0].num_tokens == ids.index(stop)
    assert replies == [expected(body, tokenizer, prompt, 6) for prompt in asked]


def test_an_end_token_in_the_last_place_still_ends_the_reply(body: Any, tokenizer: Any) -> None:
    (prompt,) = prompts(5, seed=2)
    ids = argmax_ids(body, prompt, 8, set())
    last = next(i for i in range(7, 0, -1) if ids[i] not in ids[:i])
    body.generation_config.eos_token_id = ids[last]
    (whole,) = greedy_replies(body, tokenizer, [prompt], max_new_tokens=last + 1)
    (cut,) = greedy_replies(body, tokenizer, [prompt], max_new_tokens=last)
    assert (whole.num_tokens, whole.has_ended) == (last, True)
    assert (cut.num_tokens, cut.has_ended) == (last, False)


def test_penalties_and_sampling_of_the_models_own_generation_config_are_set_aside(body: Any, tokenizer: Any) -> None:
    asked = prompts(6, 2)
    before = [expected(body, tokenizer, prompt, 6) for prompt in asked]
    given = {"do_sample": True, "temperature": 9.0, "top_k": 3, "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "num_beams": 2}
    body.generation_config.update(**given, min_new_tokens=6, suppress_tokens=list(range(2, 300)), max_length=3)
    assert greedy_replies(body, tokenizer, asked, max_new_tokens=6) == before
    assert {name: getattr(body.generation_config, name) for name in given} == given, "the model's own settings are left as they were"


@pytest.fixture
def short_body(make_tiny_llama: Callable[..., Path], tmp_path: Path) -> Any:
    """A model with 16 learned positions: there is no seventeenth."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=512, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1))


def test_a_reply_ends_at_the_models_last_position(short_body: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    asked = prompts(3, 14, 16, 20, 10)
    with caplog.at_level(logging.WARNING):
        replies = greedy_replies(short_body, tokenizer, asked, max_new_tokens=8)
    assert [reply.num_tokens for reply in replies] == [8, 2, 0, 0, 6]
    assert replies[2] == Reply("", 0, has_ended=False)
    limits = {0: 8, 1: 2, 4: 6}
    assert {i: replies[i] for i in limits} == {i: expected(short_body, tokenizer, asked[i], num) for i, num in limits.items()}
    assert caplog.messages == []


def test_the_mode_is_put_back_when_generation_fails(body: Any, tokenizer: Any) -> None:
    with pytest.raises(IndexError):
        greedy_replies(body, tokenizer, [np.array([9999], dtype=np.int32)], max_new_tokens=2)
    assert body.training

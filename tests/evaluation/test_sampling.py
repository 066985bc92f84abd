"""Sampled replies: seeded, by the model's own probabilities, and without a trace in the caller's random numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

from orpo.evaluation.generation import greedy_replies, sampled_replies

PROMPTS = [np.arange(2, 2 + size).astype(np.int32) for size in (3, 9)]


def test_samples_are_those_of_their_seed_and_leave_the_callers_random_numbers_alone(body: Any, tokenizer: Any) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = sampled_replies(body, tokenizer, PROMPTS, num=3, seed=1, max_new_tokens=6)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == sampled_replies(body, tokenizer, PROMPTS, num=3, seed=1, max_new_tokens=6)
    assert first != sampled_replies(body, tokenizer, PROMPTS, num=3, seed=2, max_new_tokens=6)
    assert [len(replies) for replies in first] == [3, 3]
    assert len({reply.text for replies in first for reply in replies}) > 2


def test_a_first_token_is_drawn_as_often_as_the_model_says(body: Any, tokenizer: Any) -> None:
    prompt, num = PROMPTS[0], 600
    ids = torch.tensor([prompt.tolist()])
    with torch.no_grad():
        hidden = body.model(input_ids=ids).last_hidden_state[0, -1]
        likeliest = int(body.lm_head(hidden).argmax())
        body.lm_head.weight[likeliest] += 6 * hidden / hidden.norm() ** 2  # its logit gains 6: a share that can be told from none
        share = float(body(input_ids=ids).logits[0, -1].softmax(0)[likeliest])
    assert 0.1 < share < 0.95
    drawn = sampled_replies(body, tokenizer, [prompt], num=num, seed=0, max_new_tokens=1, prompts_per_batch=100)[0]
    text = greedy_replies(body, tokenizer, [prompt], max_new_tokens=1)[0].text
    assert abs(Counter(reply.text for reply in drawn)[text] / num - share) < 4 * (share * (1 - share) / num) ** 0.5

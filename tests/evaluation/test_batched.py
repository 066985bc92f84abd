"""Seeded replies in batches and as a stream: each is what it is whatever stands beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.tokens import TokenIds
from orpo.errors import ConfigError
from orpo.evaluation.batched import replies_by_batch
from orpo.evaluation.generation import Reply, greedy_replies
from orpo.evaluation.sampling import Draw, Sampling
from orpo.evaluation.streaming import streamed_reply

PROMPTS = [np.random.default_rng(9).integers(2, 512, size=size).astype(np.int32) for size in (3, 17, 1, 9, 30, 9, 4)]
SAMPLED = Sampling(max_new_tokens=8, temperature=0.9, top_p=0.95, seed=3)


def replies(body: Any, tokenizer: Any, prompts: Sequence[TokenIds], sampling: Sampling, batch_size: int) -> list[Reply]:
    """The reply of each prompt, in order."""
    body.eval()
    keys = [(number, 0) for number in range(len(prompts))]
    done = [item for batch in replies_by_batch(body, tokenizer, prompts, keys, sampling, batch_size=batch_size) for item in batch]
    assert sorted(index for index, _ in done) == list(range(len(prompts)))
    return [reply for _, reply in sorted(done, key=lambda item: item[0])]


def test_greedy_replies_in_batches_are_those_of_one_at_a_time(body: Any, tokenizer: Any) -> None:
    alone = [greedy_replies(body, tokenizer, [prompt], max_new_tokens=8)[0] for prompt in PROMPTS]
    for size in (1, 3, 16):
        assert replies(body, tokenizer, PROMPTS, Sampling(max_new_tokens=8), size) == alone
    assert len({reply.text for reply in alone}) > 4


def test_a_sample_does_not_depend_on_the_batch_it_was_drawn_in(body: Any, tokenizer: Any) -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = replies(body, tokenizer, PROMPTS, SAMPLED, 1)
    assert [replies(body, tokenizer, PROMPTS, SAMPLED, size) for size in (2, 5, 16)] == [first] * 3
    assert first != replies(body, tokenizer, PROMPTS, Sampling(8, 0.9, 0.95, seed=4), 1)
    assert first != replies(body, tokenizer, PROMPTS, Sampling(max_new_tokens=8), 1)
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's random numbers are left alone"


def test_a_longer_reply_goes_on_from_the_shorter_one(body: Any, tokenizer: Any) -> None:
    short = replies(body, tokenizer, PROMPTS[:2], Sampling(4, 1.0, 1.0, 1), 2)
    long = replies(body, tokenizer, PROMPTS[:2], Sampling(8, 1.0, 1.0, 1), 2)
    assert [one.text for one in long] != [one.text for one in short]
    assert all(two.text.startswith(one.text.rstrip("\ufffd")) for one, two in zip(short, long, strict=True))


def test_a_token_is_where_the_cumulative_probability_passes_the_number() -> None:
    scores = torch.tensor([0.5, 0.0, 0.3, 0.2]).log().expand(6, 4)
    draw = Draw(torch.tensor([[0.0], [0.49], [0.51], [0.79], [0.81], [1 - 2**-53]], dtype=torch.float64))
    chosen = draw(torch.zeros(6, 1), scores)
    assert chosen.argmax(-1).tolist() == [0, 0, 2, 2, 3, 3]
    assert (chosen.isfinite().sum(-1) == 1).all()


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"), [(1.0, 1.0, (0.5, 0.3, 0.2)), (0.5, 1.0, (0.66, 0.24, 0.11)), (1.0, 0.7, (0.625, 0.375, 0))]
)
def test_temperature_and_top_p_give_the_shares_worked_out_by_hand(temperature: float, top_p: float, expected: tuple[float, ...]) -> None:
    # At 0.5 shares are squared: 25, 9 and 4 of 38. The likeliest that have 0.7 together are the first two: 5 and 3 of 8.
    num = 4000
    choice = Sampling(1, temperature, top_p, seed=0).choice([(number,) for number in range(num)], torch.device("cpu"))
    scores = torch.tensor([0.5, 0.3, 0.2]).log().expand(num, 3)
    drawn = Counter(choice["logits_processor"](torch.zeros(num, 1, dtype=torch.long), scores).argmax(-1).tolist())
    for token, share in enumerate(expected):
        assert abs(drawn[token] / num - share) < 4 * (0.25 / num) ** 0.5


def test_a_stream_grows_to_the_reply_and_stops_when_asked(body: Any, tokenizer: Any) -> None:
    body.eval()
    for sampling in (Sampling(max_new_tokens=8), SAMPLED):
        seen: list[str] = []
        reply = streamed_reply(body, tokenizer, PROMPTS[1], sampling, key=(1, 0), show=seen.append)
        assert reply == replies(body, tokenizer, PROMPTS, sampling, 4)[1]
        assert seen[-1] == reply.text
        assert all(after.startswith(before) for before, after in pairwise(seen))
        assert len(set(seen)) > 3
    seen = []
    cut = streamed_reply(
        body, tokenizer, PROMPTS[1], Sampling(max_new_tokens=8), key=(1,), show=seen.append, should_stop=lambda: len(seen) >= 2
    )
    assert 1 < cut.num_tokens < 8
    assert not cut.has_ended
    assert greedy_replies(body, tokenizer, [PROMPTS[1]], max_new_tokens=8)[0].text.startswith(cut.text)


def test_half_a_character_is_not_shown(body: Any, tokenizer: Any) -> None:
    from orpo.evaluation.streaming import Writing

    seen: list[str] = []
    writing = Writing(tokenizer, {1}, seen.append)
    writing.put(torch.tensor([[5, 6, 7]]))
    ids = tokenizer("é", add_special_tokens=False)["input_ids"]
    assert len(ids) == 2, "two bytes, two tokens"
    for token in (*ids, 1):
        writing.put(torch.tensor([token]))
    assert seen == ["é", "é"]


def test_prompts_that_fill_the_positions_get_an_empty_reply(body: Any, tokenizer: Any) -> None:
    body.config.max_position_embeddings = 17
    made = replies(body, tokenizer, PROMPTS, Sampling(max_new_tokens=12), 4)
    assert [reply.num_tokens for reply in made] == [12, 0, 12, 8, 0, 8, 12]
    shown: list[str] = []
    assert streamed_reply(body, tokenizer, PROMPTS[1], SAMPLED, key=(0,), show=shown.append) == Reply("", 0, has_ended=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1.0}, "--temperature is -1.0"),
        ({"temperature": float("nan")}, "--temperature is nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p is 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "--top-p is 1.5"),
        ({"top_p": 0.9}, "changes nothing at --temperature 0"),
        ({"max_new_tokens": 0}, "--max-new-tokens is 0"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Sampling(**settings)

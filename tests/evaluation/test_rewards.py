"""Scores of a reward model against single rows through transformers' own model, and their summary by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.data.prompts import Prompt
from orpo.data.row import Problem
from orpo.data.tokenize import IDENTICAL_TOKENS
from orpo.errors import ConfigError
from orpo.evaluation.judging import LOSS, TIE, WIN, Contest, decisions
from orpo.evaluation.reward_judge import RewardJudge
from orpo.evaluation.rewards import FIGURES, RewardScore, reward_scores, summarize


@pytest.fixture(scope="module")
def scorer() -> Any:
    """A random reward model whose scores spread."""
    import transformers

    torch.manual_seed(2)
    shape = {"vocab_size": 64, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "initializer_range": 0.3}
    config = transformers.LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2, num_labels=1, pad_token_id=0)
    return transformers.LlamaForSequenceClassification(config).train()


def pair(*rows: Sequence[int]) -> TokenizedExample:
    prompt, *answers = (np.array(row, dtype=np.int32) for row in rows)
    return TokenizedExample(prompt, tuple(answers), Source("pairs.jsonl", 1))


PAIRS = [pair([5, 6, 7], [8, 9], [10, 11, 12, 13]), pair([3, 4], [5, 6, 7], [5, 6, 8, 9]), pair([9], [7], [30, 31, 32])]


def row_score(model: Any, example: TokenizedExample, index: int) -> float:
    with torch.no_grad():
        ids = [*example.prompt_ids.tolist(), *example.completions[index].tolist()]
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


def test_scores_are_those_of_single_rows_and_the_mode_is_put_back(scorer: Any) -> None:
    ticks: list[int] = []
    scores = reward_scores(scorer, PAIRS, tokens_at_once=12, tick=lambda: ticks.append(1))
    assert scorer.training
    assert len(ticks) == 3
    scorer.eval()
    for score, example in zip(scores, PAIRS, strict=True):
        assert score.chosen == pytest.approx(row_score(scorer, example, 0), abs=1e-5)
        assert score.rejected == pytest.approx(row_score(scorer, example, 1), abs=1e-5)
    scorer.train()


def test_the_summary_is_that_computed_by_hand() -> None:
    figures = summarize([RewardScore(2.0, 1.0), RewardScore(0.0, 0.5), RewardScore(1.0, 1.0), RewardScore(3.0, -1.0)])
    assert tuple(figures) == FIGURES
    assert (figures["num_pairs"], figures["accuracy"]) == (4, 0.5), "a tie counts as wrong"
    assert (figures["accuracy_low"], figures["accuracy_high"]) == (pytest.approx(0.1500, abs=5e-5), pytest.approx(0.8500, abs=5e-5))
    assert (figures["rewards/chosen"], figures["rewards/rejected"]) == (1.5, 0.375)
    # Leads 1, -0.5, 0, 4: mean 1.125, squared deviations 0.015625 + 2.640625 + 1.265625 + 8.265625.
    half = 1.959964 * math.sqrt(12.1875 / 3 / 4)
    assert figures["margin"] == 1.125
    assert (figures["margin_low"], figures["margin_high"]) == (pytest.approx(1.125 - half, abs=1e-6), pytest.approx(1.125 + half, abs=1e-6))


def contest(first: str, second: str) -> Contest:
    return Contest(Prompt("p", Source("p.jsonl", 1)), first, second)


def in_letters(contests: Sequence[Contest]) -> list[TokenizedExample | Problem]:
    """Each letter is a token; replies that are the same but for case have the same tokens."""
    results: list[TokenizedExample | Problem] = []
    for one in contests:
        first, second = ([ord(letter) - 64 for letter in text.upper()] for text in (one.first, one.second))
        results.append(pair([1], first, second) if first != second else Problem(IDENTICAL_TOKENS, "the same", one.source, "dropped"))
    return results


def test_the_judge_decides_by_scores_and_a_blank_reply_is_worse_than_any_other(scorer: Any) -> None:
    judge = RewardJudge("rewards", scorer.eval(), in_letters)
    asked = [contest("abc", "zyx"), contest("zyx", "abc"), contest(" ", "abc"), contest("abc", ""), contest("", " "), contest("ab", "AB")]
    first, swapped, *rest = decisions(judge, asked)
    lead = row_score(scorer, pair([1], [1, 2, 3], [26, 25, 24]), 0) - row_score(scorer, pair([1], [1, 2, 3], [26, 25, 24]), 1)
    assert abs(lead) > 0.1, "the scores tell the replies apart"
    assert (first.outcome, swapped.outcome) == ((WIN, LOSS) if lead > 0 else (LOSS, WIN))
    assert [decision.outcome for decision in rest] == [LOSS, WIN, TIE, TIE]


def test_a_reply_that_cannot_be_read_is_named(scorer: Any) -> None:
    problem = Problem("too-long", "prompt and reply have 99 tokens, the model only 9 positions", Source("p.jsonl", 7), fix="shorten it")
    judge = RewardJudge("runs/reward-1", scorer, lambda contests: [problem] * len(contests))
    with pytest.raises(ConfigError, match=r"p\.jsonl:7: runs/reward-1 cannot read a reply: prompt and reply have 99 tokens") as caught:
        decisions(judge, [contest("a", "b")])
    assert "shorten it" in str(caught.value)

"""Held-out figures against sums made by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.evaluation.preference import FIGURES, PairScore, pair_scores, summarize

SCORES = [
    PairScore("a:1", chosen=-1.0, rejected=-2.0, chosen_tokens=10, rejected_tokens=3),
    PairScore("a:2", chosen=-3.0, rejected=-2.5, chosen_tokens=2, rejected_tokens=30),
    PairScore("a:3", chosen=-2.0, rejected=-2.0, chosen_tokens=4, rejected_tokens=4),
    PairScore("a:4", chosen=-0.5, rejected=-4.5, chosen_tokens=4, rejected_tokens=1),
]


def test_figures_are_those_computed_by_hand() -> None:
    figures = summarize(SCORES)
    assert figures["num_pairs"] == 4
    assert figures["accuracy"] == 0.5, "a tie counts as wrong"
    # Wilson for 2 of 4: 0.5 -+ z sqrt(1/16 + z^2/64) / (1 + z^2/4).
    assert (figures["accuracy_low"], figures["accuracy_high"]) == (pytest.approx(0.1500, abs=5e-5), pytest.approx(0.8500, abs=5e-5))
    # By tokens, not by pairs: (1 * 10 + 3 * 2 + 2 * 4 + 0.5 * 4) / 20.
    assert figures["nll_loss"] == pytest.approx(26 / 20, abs=1e-12)
    assert (figures["logps/chosen"], figures["logps/rejected"]) == (-1.625, -2.75)
    # Margins 1, -0.5, 0, 4: mean 1.125, squared deviations 0.015625 + 2.640625 + 1.265625 + 8.265625.
    half = 1.959964 * math.sqrt(12.1875 / 3 / 4)
    assert figures["margin"] == 1.125
    assert (figures["margin_low"], figures["margin_high"]) == (pytest.approx(1.125 - half, abs=1e-6), pytest.approx(1.125 + half, abs=1e-6))


def test_the_names_that_a_gate_may_use_are_the_figures() -> None:
    assert tuple(summarize(SCORES)) == FIGURES


def examples(num: int) -> list[TokenizedExample]:
    draw = np.random.default_rng(3)
    return [
        TokenizedExample(
            draw.integers(2, 512, size=2 + i).astype(np.int32),
            (draw.integers(2, 512, size=1 + i).astype(np.int32), draw.integers(2, 512, size=4).astype(np.int32)),
            Source("a.jsonl", i + 1),
        )
        for i in range(num)
    ]


def mean_logp(body: Any, prompt: list[int], completion: list[int]) -> float:
    """Mean log p of `completion`, token by token: one forward pass for each, of the text before it."""
    total = 0.0
    for i, token in enumerate(completion):
        with torch.no_grad():
            logits = body(input_ids=torch.tensor([prompt + completion[:i]])).logits[0, -1]
        total += float(torch.log_softmax(logits.double(), -1)[token])
    return total / len(completion)


def test_scores_equal_log_probs_taken_token_by_token(body: Any) -> None:
    pairs = examples(4)
    ticks: list[int] = []
    scores = pair_scores(body, pairs, tick=lambda: ticks.append(1))
    assert body.training, "the model's mode is put back"
    assert len(ticks) == 4
    body.eval()
    for score, pair in zip(scores, pairs, strict=True):
        prompt, (chosen, rejected) = pair.prompt_ids.tolist(), (ids.tolist() for ids in pair.completions)
        assert score.source == str(pair.source)
        assert (score.chosen_tokens, score.rejected_tokens) == (len(chosen), len(rejected))
        assert score.chosen == pytest.approx(mean_logp(body, prompt, chosen), abs=1e-5)
        assert score.rejected == pytest.approx(mean_logp(body, prompt, rejected), abs=1e-5)


def test_dropout_does_not_touch_the_scores(body: Any) -> None:
    for layer in body.model.layers:
        layer.self_attn.attention_dropout = 0.9
    first, second = (pair_scores(body, examples(2)) for _ in range(2))
    assert first == second

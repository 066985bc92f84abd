"""SFT: the likelihood of the chosen answers and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from orpo.core.logps import ChosenLogps, PairLogps
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.orpo import orpo
from orpo.objectives.sft import sft

Pairs = Callable[..., PairLogps]


def test_by_default_every_token_of_the_step_weighs_the_same(pairs: Pairs) -> None:
    totals = [torch.tensor(column, dtype=torch.float64) for column in ([-6.0, -2.0], [-1.0, -1.0], [-4.0, -1.0])]
    loss = sft(pairs(tuple(totals), ([3, 1], [1, 1], [2, 5])))
    assert [term.name for term in loss.terms] == ["nll"]
    assert step_loss(loss, {"pairs": 2, "chosen_tokens": 4, "prompt_and_chosen_tokens": 11}).item() == (6.0 + 2.0) / 4


def test_rejected_answers_and_prompts_get_no_gradient(pairs: Pairs, eight: Any) -> None:
    leaves, counts = eight
    total = sft(pairs(leaves, counts)).terms[0].total
    chosen, rejected, prompt = torch.autograd.grad(total, leaves, allow_unused=True)
    assert torch.equal(chosen, -torch.ones(8, dtype=torch.float64))
    assert rejected is None
    assert prompt is None


def test_it_shows_the_same_figures_as_orpo_where_both_have_them(pairs: Pairs, eight: Any) -> None:
    policy = pairs(*eight)
    shown, other = sft(policy, nll_average="sequence").metrics, orpo(policy).metrics
    assert set(shown) == {"nll_loss", "logps/chosen", "logps/rejected", "rewards/accuracies", "log_odds_chosen", "odds_clamped"}
    for name, metric in shown.items():
        assert (metric.total.item(), metric.unit) == (other[name].total.item(), other[name].unit), name


@pytest.mark.parametrize("nll_over", ["completion", "prompt+completion"])
def test_without_the_rejected_answers_the_loss_is_the_same_and_nothing_is_shown_of_them(pairs: Pairs, eight: Any, nll_over: Any) -> None:
    policy = pairs(*eight)
    alone, whole = sft(ChosenLogps(policy.chosen, policy.prompt), nll_over=nll_over), sft(policy, nll_over=nll_over)
    assert torch.equal(alone.terms[0].total, whole.terms[0].total)
    assert set(alone.metrics) == {"nll_loss", "logps/chosen", "odds_clamped"}
    assert torch.equal(alone.metrics["logps/chosen"].total, whole.metrics["logps/chosen"].total)


def test_an_unknown_average_is_refused(pairs: Pairs, eight: Any) -> None:
    with pytest.raises(ConfigError, match="nll_average is 'mean'"):
        sft(pairs(*eight), nll_average="mean")  # type: ignore[arg-type]

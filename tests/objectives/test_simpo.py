"""The SimPO loss against a transcription of its equation, and what its margin does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from orpo.core.logps import PairLogps
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.simpo import simpo

Pairs = Callable[..., PairLogps]
Means = Callable[[Tensor, Tensor], PairLogps]


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 0.5), (2.5, 0.0), (10.0, 3.0)])
def test_the_loss_is_equation_6_of_the_paper(pairs: Pairs, eight: Any, beta: float, gamma: float) -> None:
    leaves, counts = eight
    losses = []
    for chosen, rejected, num_chosen, num_rejected in zip(leaves[0].tolist(), leaves[1].tolist(), *counts[:2], strict=True):
        lead = beta / num_chosen * chosen - beta / num_rejected * rejected - gamma
        losses.append(math.log(1 + math.exp(-lead)))
    assert step_loss(simpo(pairs(leaves, counts), beta=beta, gamma=gamma), {"pairs": 8}).item() == pytest.approx(sum(losses) / 8, rel=1e-12)


def test_the_gradient_is_beta_over_m_times_how_wrong_the_pair_is(pairs: Pairs, eight: Any) -> None:
    leaves, counts = eight
    loss = step_loss(simpo(pairs(leaves, counts), beta=2.0, gamma=1.0), {"pairs": 8})
    chosen, rejected = torch.autograd.grad(loss, leaves[:2])
    for i in range(8):
        lead = 2.0 * (leaves[0][i].item() / counts[0][i] - leaves[1][i].item() / counts[1][i]) - 1.0
        wrong = 1 / (1 + math.exp(lead))
        assert chosen[i].item() == pytest.approx(-wrong * 2.0 / counts[0][i] / 8, rel=1e-12)
        assert rejected[i].item() == pytest.approx(wrong * 2.0 / counts[1][i] / 8, rel=1e-12)


def test_gamma_moves_the_lead_asked_for_and_nothing_else(means: Means) -> None:
    """A pair that leads by gamma / beta in mean log-prob has the loss of a tie without a margin: log 2."""
    tie = torch.tensor([-1.0], dtype=torch.float64)
    ahead = torch.tensor([-1.0 + 1.5 / 2.5], dtype=torch.float64)
    assert simpo(means(tie, tie), beta=2.5, gamma=0.0).terms[0].total.item() == pytest.approx(math.log(2), rel=1e-14)
    assert simpo(means(ahead, tie), beta=2.5, gamma=1.5).terms[0].total.item() == pytest.approx(math.log(2), rel=1e-14)
    shown = [simpo(means(ahead, tie), beta=2.5, gamma=gamma).metrics["rewards/margins"].total.item() for gamma in (0.0, 1.5)]
    assert shown == [pytest.approx(1.5, rel=1e-14)] * 2, "the margin shown is the pair's own"


def test_the_defaults_are_the_authors_codes(pairs: Pairs, eight: Any) -> None:
    """beta 2.0 and gamma_beta_ratio 0.25 (princeton-nlp/SimPO, scripts/simpo_config.py)."""
    by_default, by_name = simpo(pairs(*eight)), simpo(pairs(*eight), beta=2.0, gamma=2.0 * 0.25)
    assert by_default.terms[0].total.item() == by_name.terms[0].total.item()


def test_rewards_are_beta_times_the_mean_log_prob(means: Means) -> None:
    shown = simpo(means(torch.tensor([-1.0, -2.0]), torch.tensor([-4.0, -0.5])), beta=2.0).metrics
    assert (shown["rewards/chosen"].total.item(), shown["rewards/rejected"].total.item()) == (-6.0, -9.0)
    assert shown["rewards/accuracies"].total.item() == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0"),
        ({"gamma": -0.1}, "gamma is -0.1\n  expected: a finite number, 0 or more"),
        ({"gamma": math.inf}, "gamma is inf"),
    ],
)
def test_an_option_out_of_range_is_refused_and_named(means: Means, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simpo(means(torch.zeros(1), torch.zeros(1)), **options)
    assert str(caught.value).startswith(message)

"""The loss of a reward model against Bradley and Terry's model written out, and what its level depends on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from orpo.core.logps import PairScores
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.reward import reward

CHOSEN = torch.tensor([1.5, -0.3, 0.2, 40.0], dtype=torch.float64, requires_grad=True)
REJECTED = torch.tensor([0.1, 0.9, 0.2, -30.0], dtype=torch.float64, requires_grad=True)
COUNTS = {"pairs": 4}


@pytest.mark.parametrize(("margin", "centring"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.01), (1.2, 0.3)])
def test_the_loss_is_minus_the_log_likelihood_of_the_preferences(margin: float, centring: float) -> None:
    losses = []
    for won, lost in zip(CHOSEN.tolist(), REJECTED.tolist(), strict=True):
        strength_won, strength_lost = math.exp(won - margin), math.exp(lost)
        losses.append(-math.log(strength_won / (strength_won + strength_lost)) + centring * (won + lost) ** 2)
    loss = reward(PairScores(CHOSEN, REJECTED), margin=margin, centring=centring)
    # The last pair's own loss, e^-70, is below what 1 - x can tell in the transcription.
    assert step_loss(loss, COUNTS).item() == pytest.approx(sum(losses) / 4, rel=1e-12)


def test_the_gradient_is_the_probability_of_the_wrong_order() -> None:
    loss = step_loss(reward(PairScores(CHOSEN, REJECTED), margin=0.5, centring=0.1), COUNTS)
    chosen, rejected = torch.autograd.grad(loss, (CHOSEN, REJECTED))
    for i, (won, lost) in enumerate(zip(CHOSEN.tolist(), REJECTED.tolist(), strict=True)):
        wrong = 1 / (1 + math.exp(won - lost - 0.5))
        assert chosen[i].item() == pytest.approx((-wrong + 0.2 * (won + lost)) / 4, rel=1e-12)
        assert rejected[i].item() == pytest.approx((wrong + 0.2 * (won + lost)) / 4, rel=1e-12)


def test_without_centring_a_constant_added_to_all_scores_changes_nothing_and_with_it_does() -> None:
    def at(level: float, centring: float) -> float:
        return step_loss(reward(PairScores(CHOSEN + level, REJECTED + level), centring=centring), COUNTS).item()

    assert at(5.0, 0.0) == pytest.approx(at(0.0, 0.0), rel=1e-13)
    # (s + 2c)^2 - s^2 = 4 c s + 4 c^2, with s the sums of scores.
    sums = (CHOSEN + REJECTED).tolist()
    assert at(5.0, 0.1) - at(0.0, 0.1) == pytest.approx(0.1 * sum(20 * s + 100 for s in sums) / 4, rel=1e-12)


def test_metrics_are_the_figures_worked_out_by_hand() -> None:
    loss = reward(PairScores(CHOSEN, REJECTED), margin=2.0)
    shown = {name: metric.total.item() for name, metric in loss.metrics.items()}
    expected = {"rewards/chosen": 41.4, "rewards/rejected": -28.8, "rewards/margins": 70.2, "rewards/accuracies": 2.0}
    assert shown == pytest.approx(expected, rel=1e-12), "the third pair is a tie, and a margin asked for does not change what is accurate"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"margin": -1.0}, "margin is -1.0"), ({"centring": math.nan}, "centring is nan"), ({"centring": -0.1}, "centring is -0.1")],
)
def test_an_option_out_of_range_is_refused_and_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reward(PairScores(CHOSEN, REJECTED), **options)

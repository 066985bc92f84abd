"""The DPO loss against a transcription of its equation, its closed-form gradient, and a preference that never fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.dpo import dpo

Pairs = Callable[..., PairLogps]


def transcribed(policy: Any, reference: Any, beta: float, smoothing: float) -> float:
    """Equation 7 from probabilities, with the authors' label smoothing: sigmoid of the difference of beta * log(pi / pi_ref)."""
    (won, lost), (ref_won, ref_lost) = (np.exp(np.array(side, np.float64)) for side in (policy, reference))
    preferred = (won / ref_won) ** beta / ((won / ref_won) ** beta + (lost / ref_lost) ** beta)
    return float(np.mean(-(1 - smoothing) * np.log(preferred) - smoothing * np.log(1 - preferred)))


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_loss_is_equation_7_of_the_paper(pairs: Pairs, eight: Any, eight_reference: Any, beta: float, smoothing: float) -> None:
    leaves, counts = eight
    expected = transcribed([t.tolist() for t in leaves[:2]], [t.tolist() for t in eight_reference[0][:2]], beta, smoothing)
    loss = dpo(pairs(leaves, counts), pairs(*eight_reference), beta=beta, label_smoothing=smoothing)
    assert step_loss(loss, {"pairs": 8}).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_autograd_gives_the_gradient_of_the_paper_and_gradcheck_agrees(
    pairs: Pairs, eight: Any, eight_reference: Any, smoothing: float
) -> None:
    """Section 4 of the paper: -beta * sigmoid(-z) * (grad lp_w - grad lp_l); smoothing takes its share from the other side."""
    leaves, counts = eight
    reference = pairs(*eight_reference)

    def whole_step(chosen: Tensor, rejected: Tensor) -> Tensor:
        policy = pairs((chosen, rejected, leaves[2]), counts)
        return step_loss(dpo(policy, reference, beta=0.3, label_smoothing=smoothing), {"pairs": 8})

    chosen, rejected = torch.autograd.grad(whole_step(*leaves[:2]), leaves[:2])
    z = (0.3 * ((leaves[0] - reference.chosen.total) - (leaves[1] - reference.rejected.total))).tolist()
    expected = [-0.3 * ((1 - smoothing) / (1 + math.exp(m)) - smoothing / (1 + math.exp(-m))) / 8 for m in z]
    assert chosen.tolist() == pytest.approx(expected, rel=1e-12)
    assert rejected.tolist() == pytest.approx([-value for value in expected], rel=1e-12)
    assert torch.autograd.gradcheck(whole_step, leaves[:2], eps=1e-6, atol=1e-8)


def test_the_reference_gets_no_gradient_even_where_it_could(pairs: Pairs, eight: Any, eight_reference: Any) -> None:
    totals, counts = eight_reference
    leaves = tuple(total.clone().requires_grad_() for total in totals)
    loss = step_loss(dpo(pairs(*eight), pairs(leaves, counts)), {"pairs": 8})
    assert torch.autograd.grad(loss, leaves, allow_unused=True) == (None, None, None)


def test_a_policy_that_is_its_reference_has_the_loss_log_2_and_no_reward(pairs: Pairs, eight: Any) -> None:
    leaves, counts = eight
    policy = pairs(leaves, counts)
    loss = dpo(policy, pairs(tuple(leaf.detach() for leaf in leaves), counts))
    assert step_loss(loss, {"pairs": 8}).item() == pytest.approx(math.log(2), rel=1e-15)
    assert {loss.metrics[name].total.item() for name in ("rewards/chosen", "rewards/rejected", "rewards/accuracies")} == {0.0}


def descended(loss_of: Callable[[Tensor], Tensor], steps: int, rate: float) -> list[float]:
    """The values of one free number under gradient descent, from 0."""
    margin, seen = torch.zeros((), dtype=torch.float64), []
    for _ in range(steps):
        margin.requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(margin), margin)
        margin = (margin - rate * slope).detach()
        seen.append(margin.item())
    return seen


def dpo_of_margin(margin: Tensor, smoothing: float = 0.0) -> Tensor:
    """The loss of one pair whose log ratios differ by `margin`."""
    one = torch.ones(1, dtype=torch.float64)
    zero = CompletionLogps(0 * one, one)
    policy = PairLogps(CompletionLogps(margin[None], one), zero, None)
    return step_loss(dpo(policy, PairLogps(zero, zero, None), beta=0.5, label_smoothing=smoothing), {"pairs": 1})


def test_on_a_preference_that_never_fails_the_margin_grows_without_end() -> None:
    """Azar 2023, section 4.2: nothing in the loss holds it. Growth is as log(steps): 10 times the steps add log(10) / beta."""
    seen = descended(dpo_of_margin, 3_000, rate=4.0)
    assert all(later > earlier for earlier, later in pairwise(seen))
    assert seen[2_999] - seen[299] == pytest.approx(math.log(10) / 0.5, rel=0.02)


def test_label_smoothing_stops_the_margin_at_the_log_odds_of_the_labels() -> None:
    seen = descended(lambda margin: dpo_of_margin(margin, smoothing=0.1), 300, rate=4.0)
    assert 0.5 * seen[-1] == pytest.approx(math.log(0.9 / 0.1), rel=1e-9)


def test_loss_and_gradient_are_finite_where_a_margin_is_huge() -> None:
    for value in (-1e5, 1e5):
        margin = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        loss = dpo_of_margin(margin, smoothing=0.1)
        (slope,) = torch.autograd.grad(loss, margin)
        assert loss.isfinite()
        assert slope.abs().item() <= 0.5


def test_metrics_are_the_figures_worked_out_by_hand(pairs: Pairs) -> None:
    counts = ([3, 2], [4, 1], [1, 1])
    policy = pairs([torch.tensor(column, requires_grad=True) for column in ([-3.0, -4.0], [-12.0, -1.0], [0.0, 0.0])], counts)
    reference = pairs([torch.tensor(column) for column in ([-4.0, -1.0], [-10.0, -2.0], [0.0, 0.0])], counts)
    loss = dpo(policy, reference, beta=0.5)
    shown = {name: metric.total.item() for name, metric in loss.metrics.items()}
    assert shown["rewards/chosen"] == 0.5 * (1.0 - 3.0)
    assert shown["rewards/rejected"] == 0.5 * (-2.0 + 1.0)
    assert shown["rewards/margins"] == -0.5
    assert shown["rewards/accuracies"] == 1.0, "the first pair; the second lost 3 nats where rejected won 1"
    assert (shown["logps/chosen"], shown["logps/rejected"]) == (-1.0 - 2.0, -3.0 - 1.0), "means over tokens, as for every objective"
    assert all(metric.total.dtype == torch.float64 and not metric.total.requires_grad for metric in loss.metrics.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0\n  expected: a finite number above 0"),
        ({"beta": math.inf}, "beta is inf"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5\n  expected: 0 or more, below 0.5"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"label_smoothing": math.nan}, "label_smoothing is nan"),
    ],
)
def test_an_option_out_of_range_is_refused_and_named(pairs: Pairs, eight: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dpo(pairs(*eight), pairs(*eight), **options)
    assert str(caught.value).startswith(message)

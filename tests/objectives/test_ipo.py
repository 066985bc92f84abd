"""The IPO loss against a transcription of equation 17, and the margin at which it stops, where DPO's does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.dpo import dpo
from orpo.objectives.ipo import ipo

Pairs = Callable[..., PairLogps]


def transcribed(policy: Any, reference: Any, tau: float) -> float:
    """Equation 17 with h from probabilities: log of (pi(w) pi_ref(l)) / (pi(l) pi_ref(w))."""
    (won, lost), (ref_won, ref_lost) = (np.exp(np.array(side, np.float64)) for side in (policy, reference))
    return float(np.mean((np.log((won * ref_lost) / (lost * ref_won)) - (1 / tau) / 2) ** 2))


@pytest.mark.parametrize("tau", [0.1, 0.7])
@pytest.mark.parametrize("logps", ["sum", "mean"])
def test_the_loss_is_equation_17_of_the_paper_of_sums_or_of_means(
    pairs: Pairs, eight: Any, eight_reference: Any, tau: float, logps: Any
) -> None:
    (leaves, counts), (others, _) = eight, eight_reference
    over = [np.array(column) if logps == "mean" else 1 for column in counts]
    policy, reference = ([totals[i].detach().numpy() / over[i] for i in (0, 1)] for totals in (leaves, others))
    loss = step_loss(ipo(pairs(leaves, counts), pairs(others, counts), tau=tau, logps=logps), {"pairs": 8})
    assert loss.item() == pytest.approx(transcribed(policy, reference, tau), rel=1e-12)


def test_the_gradient_is_twice_the_distance_to_the_margin_aimed_at(pairs: Pairs, eight: Any, eight_reference: Any) -> None:
    leaves, counts = eight
    reference = pairs(*eight_reference)
    loss = step_loss(ipo(pairs(leaves, counts), reference, tau=0.25), {"pairs": 8})
    chosen, rejected = torch.autograd.grad(loss, leaves[:2])
    margin = (leaves[0] - leaves[1] - reference.chosen.total + reference.rejected.total).detach()
    torch.testing.assert_close(chosen, 2 * (margin - 2.0) / 8, rtol=1e-12, atol=0)
    torch.testing.assert_close(rejected, -chosen, rtol=0, atol=0)


def of_margin(objective: Callable[..., Any], margin: Tensor, num_tokens: float = 1.0, **options: Any) -> Tensor:
    """The loss of one pair whose summed log ratios differ by `margin`."""
    num = torch.full((1,), num_tokens, dtype=torch.float64)
    zero = CompletionLogps(0 * num, num)
    policy = PairLogps(CompletionLogps(margin[None], num), zero, None)
    return step_loss(objective(policy, PairLogps(zero, zero, None), **options), {"pairs": 1})


def descended(loss_of: Callable[[Tensor], Tensor], steps: int, rate: float) -> float:
    """Where gradient descent takes one free number from 0."""
    margin = torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        margin.requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(margin), margin)
        margin = (margin - rate * slope).detach()
    return margin.item()


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_descent_on_a_free_margin_ends_at_one_over_two_tau(tau: float) -> None:
    assert descended(lambda margin: of_margin(ipo, margin, tau=tau), 200, rate=0.2) == pytest.approx(1 / (2 * tau), rel=1e-12)


def test_of_means_the_margin_per_token_ends_there() -> None:
    end = descended(lambda margin: of_margin(ipo, margin, num_tokens=4.0, tau=0.5, logps="mean"), 400, rate=2.0)
    assert end / 4 == pytest.approx(1.0, rel=1e-12)


def test_on_a_preference_that_never_fails_it_stays_where_dpo_goes_on() -> None:
    """Azar 2023, section 4.2. Ten times the steps move IPO by nothing and DPO by log(10) / beta."""
    stays = [descended(lambda margin: of_margin(ipo, margin, tau=0.5), steps, rate=0.2) for steps in (100, 1_000)]
    goes = [descended(lambda margin: of_margin(dpo, margin, beta=0.5), steps, rate=4.0) for steps in (100, 1_000)]
    assert stays[1] == pytest.approx(stays[0], rel=1e-12)
    assert goes[1] - goes[0] > 4.0


def test_rewards_are_tau_times_summed_log_ratios_with_either_choice(pairs: Pairs, eight: Any, eight_reference: Any) -> None:
    policy, reference = pairs(*eight), pairs(*eight_reference)
    expected = 0.3 * (policy.chosen.total - reference.chosen.total).sum().item()
    for logps in ("sum", "mean"):
        shown = ipo(policy, reference, tau=0.3, logps=logps).metrics["rewards/chosen"]
        assert shown.total.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0.0}, "tau is 0.0\n  expected: a finite number above 0"),
        ({"tau": math.nan}, "tau is nan"),
        ({"logps": "token"}, "logps is 'token'\n  expected: 'sum' or 'mean'"),
    ],
)
def test_an_option_out_of_range_is_refused_and_named(pairs: Pairs, eight: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ipo(pairs(*eight), pairs(*eight), **options)
    assert str(caught.value).startswith(message)

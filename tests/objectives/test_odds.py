"""The odds ratio alone is that of orpo, bit for bit, without its likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from orpo.core.logps import PairLogps
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.odds import odds
from orpo.objectives.orpo import orpo

Pairs = Callable[..., PairLogps]


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_it_is_the_odds_term_of_orpo_to_the_last_bit_with_its_metrics(pairs: Pairs, eight: Any, temperature: float) -> None:
    policy = pairs(*eight)
    alone, both = odds(policy, beta=0.4, odds_temperature=temperature), orpo(policy, beta=0.4, odds_temperature=temperature)
    (term,) = alone.terms
    assert (term.name, term.unit, term.weight) == ("odds_ratio", "pairs", 0.4)
    assert term.total.item() == both.terms[1].total.item()
    assert {name: metric.total.item() for name, metric in alone.metrics.items()} == {
        name: metric.total.item() for name, metric in both.metrics.items() if name != "nll_loss"
    }


def test_likelihood_has_no_part_in_it(pairs: Pairs, eight: Any) -> None:
    """From probabilities: -log of odds_w / (odds_w + odds_l), of the length-averaged probabilities."""
    leaves, counts = eight
    losses = []
    for chosen, rejected, num_chosen, num_rejected in zip(leaves[0].tolist(), leaves[1].tolist(), *counts[:2], strict=True):
        p_w, p_l = math.exp(chosen / num_chosen), math.exp(rejected / num_rejected)
        odds_w, odds_l = p_w / (1 - p_w), p_l / (1 - p_l)
        losses.append(-math.log(odds_w / (odds_w + odds_l)))
    assert step_loss(odds(pairs(leaves, counts)), {"pairs": 8}).item() == pytest.approx(sum(losses) / 8, rel=1e-12)


def test_beta_scales_the_whole_loss(pairs: Pairs, eight: Any) -> None:
    leaves, counts = eight
    once, thrice = (torch.autograd.grad(step_loss(odds(pairs(leaves, counts), beta=beta), {"pairs": 8}), leaves[:2]) for beta in (1.0, 3.0))
    torch.testing.assert_close([3 * gradient for gradient in once], list(thrice), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("options", "message"), [({"beta": 0.0}, "beta is 0.0"), ({"odds_temperature": 0.0}, "odds_temperature is 0.0")])
def test_an_option_out_of_range_is_refused_and_named(pairs: Pairs, eight: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        odds(pairs(*eight), **options)

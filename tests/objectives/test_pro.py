"""The PRO loss against its definition written out ranking by ranking, its identity for pairs, and answers that are not there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from orpo.core.logps import RankedLogps
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.pro import pro

Ranked = Callable[..., RankedLogps]

TOTALS = [[-6.0, -2.0, -9.0, -4.0], [-1.0, -8.0], [-5.0, -3.0, -7.5]]
COUNTS = [[3, 2, 4, 1], [1, 4], [5, 2, 3]]
SCORES = [[2.0, 1.5, 0.3, -1.0], [0.9, 0.1], [0.6, 0.6, 0.2]]
STEP = {"rankings": 3}


def transcribed(temperature: str, weight: float, nll_logps: str) -> float:
    """The definition with a loop over positions and probabilities that are not logarithms, as in the paper."""
    losses = []
    for totals, counts, scores in zip(TOTALS, COUNTS, SCORES, strict=True):
        size = len(totals)
        means = [total / count for total, count in zip(totals, counts, strict=True)]
        loss = 0.0
        for k in range(size - 1):
            gaps = [scores[k] - scores[j] if temperature == "scores" else 1.0 for j in range(k + 1, size)]
            best = math.exp(means[k] * max(gaps))  # 1 / T_k, with T_k the least of the temperatures 1 / gap
            rest = sum(math.exp(means[j] * gap) for j, gap in zip(range(k + 1, size), gaps, strict=True))
            loss -= math.log(best / (best + rest))
        nll = -(totals[0] if nll_logps == "sum" else means[0])
        losses.append(loss + weight * (size - 1) ** 2 * nll)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", ["scores", "one"])
@pytest.mark.parametrize(("weight", "nll_logps"), [(0.05, "sum"), (0.7, "mean"), (0.0, "sum")])
def test_the_loss_is_the_definition_of_the_paper(ranked: Ranked, temperature: Any, weight: float, nll_logps: Any) -> None:
    loss = pro(ranked(TOTALS, COUNTS, SCORES), weight=weight, nll_logps=nll_logps, temperature=temperature)
    assert step_loss(loss, STEP).item() == pytest.approx(transcribed(temperature, weight, nll_logps), rel=1e-12)


@pytest.mark.parametrize("temperature", ["scores", "one"])
def test_the_gradient_agrees_with_finite_differences_of_the_definition(ranked: Ranked, temperature: Any) -> None:
    data = ranked(TOTALS, COUNTS, SCORES)
    (gradient,) = torch.autograd.grad(step_loss(pro(data, temperature=temperature), STEP), data.completions.total)
    for p, row in enumerate(TOTALS):
        for k, value in enumerate(row):
            ends = []
            for step in (1e-6, -1e-6):
                row[k] = value + step
                ends.append(transcribed(temperature, 0.05, "sum"))
            row[k] = value
            assert gradient[p, k].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8)


def test_a_pair_with_temperature_one_is_minus_log_sigmoid_plus_the_likelihood_of_the_best(ranked: Ranked) -> None:
    data = ranked([[-6.0, -2.0], [-1.0, -8.0]], [[3, 2], [1, 4]], None)
    best, other = torch.tensor([-2.0, -1.0]).double(), torch.tensor([-1.0, -2.0]).double()
    expected = (-F.logsigmoid(best - other) + 0.3 * torch.tensor([6.0, 1.0]).double()).mean()
    loss = step_loss(pro(data, weight=0.3, temperature="one"), {"rankings": 2})
    assert loss.item() == pytest.approx(expected.item(), rel=1e-14)


def test_a_pair_with_scores_is_the_same_with_log_probs_times_their_difference(ranked: Ranked) -> None:
    loss = pro(ranked([[-6.0, -2.0]], [[3, 2]], [[0.9, 0.2]]), weight=0.0)
    assert step_loss(loss, {"rankings": 1}).item() == pytest.approx(math.log1p(math.exp(-0.7 * (-2.0 + 1.0))), rel=1e-13)


def test_answers_that_are_not_there_change_nothing_and_get_no_gradient(ranked: Ranked) -> None:
    """The ranking of two, alone and filled up beside a ranking of four."""
    alone, beside = ranked(TOTALS[1:2], COUNTS[1:2], SCORES[1:2]), ranked(TOTALS, COUNTS, SCORES)
    (small,) = torch.autograd.grad(step_loss(pro(alone), {"rankings": 1}), alone.completions.total)
    (large,) = torch.autograd.grad(step_loss(pro(beside), {"rankings": 1}), beside.completions.total)
    assert torch.equal(large[1, :2], small[0])
    assert large[1, 2:].tolist() == [0.0, 0.0]
    assert large[2, 3].item() == 0.0


def test_answers_with_one_score_are_not_pulled_apart(ranked: Ranked) -> None:
    data = ranked([[-6.0, -2.0]], [[3, 2]], [[0.5, 0.5]])
    (gradient,) = torch.autograd.grad(step_loss(pro(data, weight=0.0), {"rankings": 1}), data.completions.total)
    assert gradient.tolist() == [[0.0, 0.0]]


def test_the_likelihood_grows_with_the_square_of_the_length_as_the_paper_sets_it(ranked: Ranked) -> None:
    def nll(size: int) -> float:
        return pro(ranked([[-6.0] * size], [[3] * size], None), temperature="one").terms[1].total.item()

    assert [nll(size) for size in (2, 3, 5)] == [6.0, 4 * 6.0, 16 * 6.0]
    shown = pro(ranked([[-6.0] * 5], [[3] * 5], None), temperature="one").metrics["nll_loss"]
    assert (shown.total.item(), shown.unit) == (6.0, "rankings"), "what is shown is the likelihood itself"


def test_rankings_without_scores_are_refused_where_scores_are_wanted(ranked: Ranked) -> None:
    with pytest.raises(ConfigError) as caught:
        pro(ranked(TOTALS, COUNTS, None))
    assert str(caught.value).startswith("temperature is 'scores', but these rankings have no scores\n")
    assert "set temperature: one" in str(caught.value)


def test_a_batch_without_any_ranking_may_have_no_column(ranked: Ranked) -> None:
    nothing: Sequence[Sequence[float]] = [[]]
    data = ranked(nothing, [[]], [[]])
    assert step_loss(pro(data), {"rankings": 0}).item() == 0.0


def test_metrics_are_the_figures_worked_out_by_hand(ranked: Ranked) -> None:
    shown = {name: metric.total.item() for name, metric in pro(ranked(TOTALS, COUNTS, SCORES)).metrics.items()}
    # Means are -2, -1, -2.25, -4 / -1, -2 / -1, -1.5, -2.5.
    assert shown["nll_loss"] == 6.0 + 1.0 + 5.0
    assert shown["logps/chosen"] == -2.0 - 1.0 - 1.0
    assert shown["logps/rejected"] == pytest.approx(-7.25 / 3 - 2.0 - 2.0, rel=1e-14)
    assert shown["rewards/accuracies"] == pytest.approx(5 / 6 + 1 + 1, rel=1e-14), "of the first, one pair of six is the wrong way round"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -0.1}, "weight is -0.1"),
        ({"nll_logps": "token"}, "nll_logps is 'token'\n  expected: 'sum' or 'mean'"),
        ({"temperature": "two"}, "temperature is 'two'\n  expected: 'scores' or 'one'"),
    ],
)
def test_an_option_out_of_range_is_refused_and_named(ranked: Ranked, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pro(ranked(TOTALS, COUNTS, SCORES), **options)
    assert str(caught.value).startswith(message)

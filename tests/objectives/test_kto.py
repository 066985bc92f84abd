"""The KTO loss against a transcription of equation 7, its weights, and its baseline, which is made once for a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, LabelledLogps
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.kto import baseline_of, kto, mismatched_log_ratio

Labelled = Callable[..., LabelledLogps]

TOTALS, REFERENCE = [-3.0, -9.0, -4.5, -7.0, -1.0], [-5.0, -6.0, -4.0, -9.5, -1.0]
COUNTS, LABELS = [3, 4, 2, 6, 1], [True, False, False, True, True]
STEP = {"completions": 5, "desirable": 3, "undesirable": 2}


def transcribed(z0: float, beta: float, desirable: float, undesirable: float) -> float:
    """Equation 7: lambda_y - v(x, y), with the value v as the paper writes it, lambda * sigmoid(...)."""
    losses = []
    for total, reference, is_desirable in zip(TOTALS, REFERENCE, LABELS, strict=True):
        ratio = math.log(math.exp(total) / math.exp(reference))
        if is_desirable:
            losses.append(desirable - desirable / (1 + math.exp(-beta * (ratio - z0))))
        else:
            losses.append(undesirable - undesirable / (1 + math.exp(-beta * (z0 - ratio))))
    return sum(losses) / len(losses)


def of(labelled: Labelled, z0: float = 0.4, totals: Any = TOTALS, **options: Any) -> Any:
    return kto(labelled(totals, COUNTS, LABELS), labelled(REFERENCE, COUNTS, LABELS), torch.tensor(z0, dtype=torch.float64), **options)


@pytest.mark.parametrize("z0", [0.0, 0.4, 3.0])
@pytest.mark.parametrize(("beta", "desirable", "undesirable"), [(0.1, 1.0, 1.0), (0.6, 1.3, 0.5)])
def test_the_loss_is_equation_7_of_the_paper(labelled: Labelled, z0: float, beta: float, desirable: float, undesirable: float) -> None:
    loss = of(labelled, z0, beta=beta, desirable_weight=desirable, undesirable_weight=undesirable)
    assert step_loss(loss, STEP).item() == pytest.approx(transcribed(z0, beta, desirable, undesirable), rel=1e-12)


def test_the_gradient_is_largest_for_rewards_at_the_baseline_and_fades_on_both_sides(labelled: Labelled) -> None:
    """d/dr of lambda * (1 - sigmoid(beta (r - z0))) is -lambda * beta * sigmoid * (1 - sigmoid): value levels off for gain and loss."""
    leaf = torch.tensor(TOTALS, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(step_loss(of(labelled, totals=leaf, beta=0.6, undesirable_weight=0.5), STEP), leaf)
    for i, is_desirable in enumerate(LABELS):
        share = 1 / (1 + math.exp(-0.6 * (TOTALS[i] - REFERENCE[i] - 0.4)))
        expected = -0.6 * share * (1 - share) / 5
        assert gradient[i].item() == pytest.approx(expected if is_desirable else -0.5 * expected, rel=1e-12)


def test_each_weight_scales_its_own_kind(labelled: Labelled) -> None:
    def parts(**weights: float) -> list[float]:
        loss = of(labelled, **weights)
        return [(term.weight * term.total).item() for term in loss.terms]

    desirable, undesirable = parts()
    assert parts(desirable_weight=2.5, undesirable_weight=0.0) == [2.5 * desirable, 0.0]
    assert parts(desirable_weight=0.0, undesirable_weight=3.0) == [0.0, 3.0 * undesirable]


def test_the_baseline_gets_no_gradient(labelled: Labelled) -> None:
    z0 = torch.tensor(0.4, requires_grad=True)
    policy = labelled(TOTALS, COUNTS, LABELS)
    assert not step_loss(kto(policy, policy, z0), STEP).requires_grad


def test_the_baseline_is_the_mean_log_ratio_of_mismatched_pairs_clamped_after_the_mean() -> None:
    num = torch.ones(3)
    reference = CompletionLogps(torch.zeros(3), num)

    def z0(*ratios: float) -> float:
        policy = CompletionLogps(torch.tensor(ratios, requires_grad=True), num)
        return baseline_of(mismatched_log_ratio(policy, reference), 3).item()

    assert z0(4.0, -1.0, 0.0) == 1.0, "each summand clamped would give 4/3"
    assert z0(-4.0, 1.0, 0.0) == 0.0
    assert baseline_of(torch.zeros(()), 0).item() == 0.0, "a step without mismatched pairs"


def test_sums_over_micro_batches_give_the_baseline_of_the_step() -> None:
    policy, reference = torch.tensor([-3.0, -5.0, -2.0, -7.5]), torch.tensor([-4.0, -4.5, -4.0, -8.0])

    def total(rows: slice) -> Tensor:
        num = torch.ones(len(policy[rows]))
        return mismatched_log_ratio(CompletionLogps(policy[rows], num), CompletionLogps(reference[rows], num))

    parts = total(slice(0, 1)) + total(slice(1, 4))
    assert baseline_of(parts, 4).item() == baseline_of(total(slice(0, 4)), 4).item() == (1.0 - 0.5 + 2.0 + 0.5) / 4
    assert parts.dtype == torch.float64


def test_a_baseline_of_each_micro_batch_would_change_the_step(labelled: Labelled) -> None:
    """Why it is an argument: with one z0 shares add up, with a z0 each they do not."""
    whole = step_loss(of(labelled, 0.5), STEP).item()

    def cut(*baselines: float) -> float:
        parts = [slice(0, 2), slice(2, 5)]
        shares = []
        for rows, z0 in zip(parts, baselines, strict=True):
            policy, reference = (labelled(totals[rows], COUNTS[rows], LABELS[rows]) for totals in (TOTALS, REFERENCE))
            shares.append(step_loss(kto(policy, reference, torch.tensor(z0)), STEP).item())
        return sum(shares)

    assert cut(0.5, 0.5) == pytest.approx(whole, rel=1e-14)
    assert abs(cut(0.0, 1.0) - whole) > 1e-3


def test_a_step_of_one_kind_alone_has_the_loss_of_that_kind(labelled: Labelled) -> None:
    policy, reference = (labelled(totals[:1], COUNTS[:1], [True]) for totals in (TOTALS, REFERENCE))
    counts = {"completions": 1, "desirable": 1, "undesirable": 0}
    assert step_loss(kto(policy, reference, torch.tensor(0.0), beta=0.5), counts).item() == pytest.approx(
        1 / (1 + math.exp(1.0)), rel=1e-14
    )


def test_metrics_are_sums_over_the_answers_of_each_kind(labelled: Labelled) -> None:
    shown = {name: (metric.total.item(), metric.unit) for name, metric in of(labelled, 0.4, beta=0.5).metrics.items()}
    assert shown == {
        "kl": (pytest.approx(5 * 0.4), "completions"),
        "logps/chosen": (pytest.approx(-1.0 - 7 / 6 - 1.0), "desirable"),
        "logps/rejected": (pytest.approx(-2.25 - 2.25), "undesirable"),
        "rewards/chosen": (0.5 * (2.0 + 2.5 + 0.0), "desirable"),
        "rewards/rejected": (0.5 * (-3.0 - 0.5), "undesirable"),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0"),
        ({"desirable_weight": -1.0}, "desirable_weight is -1.0"),
        ({"undesirable_weight": math.inf}, "undesirable_weight is inf"),
    ],
)
def test_an_option_out_of_range_is_refused_and_named(labelled: Labelled, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of(labelled, **options)

"""The ULMA loss against the authors' code written out, and what it comes to with answers of one kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.logps import CompletionLogps, LabelledLogps, PairLogps
from orpo.core.loss import step_loss
from orpo.errors import ConfigError
from orpo.objectives.sft import sft
from orpo.objectives.ulma import ulma

Labelled = Callable[..., LabelledLogps]

TOTALS, REFERENCE = [-3.0, -9.0, -4.5, -7.0, -1.0], [-5.0, -6.0, -4.0, -9.5, -1.5]
COUNTS, LABELS = [3, 4, 2, 6, 1], [True, False, False, True, True]
STEP = {"desirable": 3, "undesirable": 2, "desirable_tokens": 10}


def transcribed(beta: float, average: str) -> float:
    """ulma_loss of the authors' trainer in numpy: 'logloss' or 'shifted_ce_loss' for the positives, 'binary' for the others."""
    logps, reference, score = np.array(TOTALS) / COUNTS, np.array(REFERENCE) / COUNTS, np.array(LABELS, float)
    logits = logps - reference
    preference = -np.log(1 / (1 + np.exp(beta * logits[score != 1]))).mean()
    if average == "sequence":
        return float(-logps[score == 1].mean() + preference)
    return float(-np.array(TOTALS)[score == 1].sum() / np.array(COUNTS)[score == 1].sum() + preference)


def of(labelled: Labelled, totals: Any = TOTALS, **options: Any) -> Any:
    return ulma(labelled(totals, COUNTS, LABELS), labelled(REFERENCE, COUNTS, LABELS), **options)


@pytest.mark.parametrize("beta", [0.1, 0.8])
@pytest.mark.parametrize("average", ["sequence", "token"])
def test_the_loss_is_that_of_the_authors_code(labelled: Labelled, beta: float, average: Any) -> None:
    loss = step_loss(of(labelled, beta=beta, nll_average=average), STEP)
    assert loss.item() == pytest.approx(transcribed(beta, average), rel=1e-12)


def test_the_gradient_pulls_desirable_answers_evenly_and_pushes_others_by_how_far_they_are_above_the_reference(labelled: Labelled) -> None:
    leaf = torch.tensor(TOTALS, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(step_loss(of(labelled, leaf, beta=0.8), STEP), leaf)
    for i, is_desirable in enumerate(LABELS):
        ratio = (TOTALS[i] - REFERENCE[i]) / COUNTS[i]
        push = 0.8 / (1 + math.exp(-0.8 * ratio)) / 2
        assert gradient[i].item() == pytest.approx((-1 / 3 if is_desirable else push) / COUNTS[i], rel=1e-12)


@pytest.mark.parametrize("average", ["sequence", "token"])
def test_with_desirable_answers_alone_it_is_sft_of_the_same_average(labelled: Labelled, average: Any) -> None:
    total = torch.tensor(TOTALS, dtype=torch.float64, requires_grad=True)
    policy = labelled(total, COUNTS, [True] * 5)
    ours = step_loss(
        ulma(policy, labelled(REFERENCE, COUNTS, [True] * 5), nll_average=average),
        {"desirable": 5, "undesirable": 0, "desirable_tokens": 16},
    )
    chosen = CompletionLogps(total, policy.completion.num_tokens)
    theirs = step_loss(sft(PairLogps(chosen, chosen, None), nll_average=average), {"pairs": 5, "chosen_tokens": 16})
    assert ours.item() == theirs.item()
    assert torch.equal(torch.autograd.grad(ours, total)[0], torch.autograd.grad(theirs, total)[0])


def test_with_undesirable_answers_alone_an_answer_as_likely_as_in_the_reference_costs_log_2(labelled: Labelled) -> None:
    policy = labelled(TOTALS, COUNTS, [False] * 5)
    loss = step_loss(ulma(policy, policy), {"desirable": 0, "undesirable": 5, "desirable_tokens": 0})
    assert loss.item() == pytest.approx(math.log(2), rel=1e-14)


def test_metrics_are_sums_over_the_answers_of_each_kind(labelled: Labelled) -> None:
    shown = {name: (metric.total.item(), metric.unit) for name, metric in of(labelled, beta=0.5).metrics.items()}
    assert shown == {
        "nll_loss": (pytest.approx(1.0 + 7 / 6 + 1.0), "desirable"),
        "logps/chosen": (pytest.approx(-1.0 - 7 / 6 - 1.0), "desirable"),
        "logps/rejected": (pytest.approx(-2.25 - 2.25), "undesirable"),
        "rewards/chosen": (pytest.approx(0.5 * (2 / 3 + 2.5 / 6 + 0.5)), "desirable"),
        "rewards/rejected": (pytest.approx(0.5 * (-3 / 4 - 0.25)), "undesirable"),
    }


@pytest.mark.parametrize(("options", "message"), [({"beta": 0.0}, "beta is 0.0"), ({"nll_average": "mean"}, "nll_average is 'mean'")])
def test_an_option_out_of_range_is_refused_and_named(labelled: Labelled, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of(labelled, **options)

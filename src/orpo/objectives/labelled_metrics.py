"""Sums over desirable and over undesirable answers, and what every objective on labelled answers shows beside its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from orpo.core.logps import LabelledLogps
from orpo.core.loss import Metric


def sum_of_desirable(policy: LabelledLogps, values: Tensor) -> Tensor:
    """The sum of `values` [A] over the desirable answers, a scalar; 0 where there are none."""
    return torch.where(policy.is_desirable, values, 0.0).sum()


def sum_of_undesirable(policy: LabelledLogps, values: Tensor) -> Tensor:
    """The sum of `values` [A] over the undesirable answers, a scalar; 0 where there are none."""
    return torch.where(policy.is_desirable, 0.0, values).sum()


@torch.no_grad()
def labelled_metrics(policy: LabelledLogps, rewards: Tensor) -> dict[str, Metric]:
    """TRL's names for log-probs and `rewards` [A] of both kinds of answer: detached fp64 sums, each over the answers of its kind.

    Desirable answers are called chosen and undesirable ones rejected, as in TRL; log-probs are means over an answer's tokens.
    """
    means = policy.completion.mean.double()
    return {
        "logps/chosen": Metric(sum_of_desirable(policy, means), unit="desirable"),
        "logps/rejected": Metric(sum_of_undesirable(policy, means), unit="undesirable"),
        "rewards/chosen": Metric(sum_of_desirable(policy, rewards), unit="desirable"),
        "rewards/rejected": Metric(sum_of_undesirable(policy, rewards), unit="undesirable"),
    }

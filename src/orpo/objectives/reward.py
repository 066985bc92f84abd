"""Reward model: a scalar head should score chosen above rejected, as Bradley and Terry's model of preferences has it.

Bradley, Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, equation 1. Margin: Touvron et al. 2023, arXiv 2307.09288, equation 2.
Centring: Eisenstein et al. 2023, arXiv 2312.09244.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from orpo.core.logps import PairScores
from orpo.core.loss import Loss, Metric, Term
from orpo.objectives.ranges import require_not_negative


def reward(policy: PairScores, *, margin: float = 0.0, centring: float = 0.0) -> Loss:
    """The loss of a reward model on P pairs, as the terms "preference" and "centring".

        L = -log sigmoid(R(chosen) - R(rejected) - margin) + centring * (R(chosen) + R(rejected))^2

    R is what the head gives at a completion's last token. Without centring a constant added to all R changes nothing, so
    the level is left to chance; a small weight (0.01) holds it about 0. Totals are fp64 scalars. Raises ConfigError for an
    option out of range.

    Options:
        margin: Lead in score that chosen should have over rejected, at least 0; one for all pairs.
        centring: Weight of the squared sum of both scores, at least 0. TRL calls it center_rewards_coefficient.
    """
    require_not_negative("margin", margin, fix="0 asks for the order alone")
    require_not_negative("centring", centring, fix="0 leaves the level free; 0.01 is usual")
    chosen, rejected = policy.chosen.double(), policy.rejected.double()
    loss = -F.logsigmoid(chosen - rejected - margin)
    return Loss(
        terms=(
            Term("preference", loss.sum(), unit="pairs"),
            Term("centring", (chosen + rejected).square().sum(), unit="pairs", weight=centring),
        ),
        metrics=_score_metrics(chosen, rejected),
    )


@torch.no_grad()
def _score_metrics(chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, Metric]:
    """The scores under the names that rewards have everywhere: detached fp64 sums over pairs. A tie is not accurate."""
    return {
        "rewards/chosen": Metric(chosen.sum()),
        "rewards/rejected": Metric(rejected.sum()),
        "rewards/margins": Metric((chosen - rejected).sum()),
        "rewards/accuracies": Metric((chosen > rejected).double().sum()),
    }

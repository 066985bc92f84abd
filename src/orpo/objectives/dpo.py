"""Direct preference optimization: the log ratio to a reference model is the reward, and chosen should have more of it than rejected.

Rafailov, Sharma, Mitchell, Ermon, Manning, Finn 2023, arXiv 2305.18290, equation 7.
"""

from __future__ import annotations

import torch.nn.functional as F

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss, Term
from orpo.errors import ConfigError
from orpo.objectives.log_ratio import log_ratio, pair_metrics_beside_reference
from orpo.objectives.ranges import require_above_zero


def dpo(policy: PairLogps, reference: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Loss:
    """The DPO loss of P pairs, as the term "preference", with TRL's metrics.

        r(y) = lp(y) - lp_ref(y)                                        sums over tokens, not means
        z = beta * (r(chosen) - r(rejected))
        L = -(1 - e) * log sigmoid(z) - e * log sigmoid(-z)             eq. 7 with e = 0

    The second summand is the authors' own: with a share e of labels swapped, the margin z ends at log((1 - e) / e) where
    without it nothing stops it. It is not what TRL 1.16 does with label_smoothing (its loss_type "robust"). The reward is
    beta * r. Nats; totals are fp64 scalars; the reference gets no gradient. Raises ConfigError for an option out of range.

    Options:
        beta: Factor that makes a log ratio to the reference a reward, above 0; a smaller one lets the policy move farther.
        label_smoothing: Share of pairs taken to be labelled the wrong way round, at least 0 and below 0.5.
    """
    require_above_zero("beta", beta, fix="0.1 is the usual start; at 0 there is no reward to compare")
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing}", expected="0 or more, below 0.5", fix="0 takes every label as right")
    chosen, rejected = (beta * log_ratio(*sides) for sides in ((policy.chosen, reference.chosen), (policy.rejected, reference.rejected)))
    margin = chosen - rejected
    loss = -F.logsigmoid(margin)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * F.logsigmoid(-margin)
    return Loss(
        terms=(Term("preference", loss.sum(), unit="pairs"),),
        metrics=pair_metrics_beside_reference(policy, chosen.detach(), rejected.detach()),
    )

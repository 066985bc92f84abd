"""Simple preference optimization: the mean log-prob is the reward, and chosen should lead by a margin; no reference model.

Meng, Xia, Chen 2024, arXiv 2405.14734, equation 6.
"""

from __future__ import annotations

import torch.nn.functional as F

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss, Metric, Term
from orpo.objectives.pair_metrics import pair_metrics
from orpo.objectives.ranges import require_above_zero, require_not_negative


def simpo(policy: PairLogps, *, beta: float = 2.0, gamma: float = 0.5) -> Loss:
    """The SimPO loss of P pairs, as the term "preference", with TRL's metrics.

        L = -log sigmoid(beta * (a(chosen) - a(rejected)) - gamma)      eq. 6, a(y) = lp(y) / m

    gamma is in units of the reward beta * a, as in the paper and in TRL (simpo_gamma); the authors' code is set by the ratio
    gamma / beta instead (gamma_beta_ratio), the lead in mean log-prob that is aimed at: 0.25 by default, so 0.5 here. There
    is no likelihood term: nothing but the data keeps the chosen answer likely. Nats; totals are fp64 scalars. Raises
    ConfigError for an option out of range.

    Options:
        beta: Factor that makes a mean log-prob a reward, above 0. The paper takes 2.0 to 2.5.
        gamma: Lead in reward that chosen should have over rejected, at least 0; the authors tune gamma / beta from 0 to 1.
    """
    require_above_zero("beta", beta, fix="the paper takes 2.0 to 2.5")
    require_not_negative("gamma", gamma, fix="the authors tune gamma / beta from 0 to 1")
    # A completion has at least one token.
    chosen, rejected = (beta * (side.total.double() / side.num_tokens) for side in (policy.chosen, policy.rejected))
    loss = -F.logsigmoid(chosen - rejected - gamma)
    return Loss(
        terms=(Term("preference", loss.sum(), unit="pairs"),),
        metrics={
            "rewards/chosen": Metric(chosen.detach().sum()),
            "rewards/rejected": Metric(rejected.detach().sum()),
            "rewards/margins": Metric((chosen - rejected).detach().sum()),
            **pair_metrics(policy),
        },
    )

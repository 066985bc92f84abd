"""Identity preference optimization: the log ratio of chosen over rejected is regressed onto a fixed margin, so it cannot run away.

Azar, Rowland, Piot, Guo, Calandriello, Valko, Munos 2023, arXiv 2310.12036, equation 17.
"""

from __future__ import annotations

from typing import Literal

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss, Term
from orpo.objectives.likelihood import require_choice
from orpo.objectives.log_ratio import log_ratio, mean_log_ratio, pair_metrics_beside_reference
from orpo.objectives.ranges import require_above_zero

LOGPS = ("sum", "mean")


def ipo(policy: PairLogps, reference: PairLogps, *, tau: float = 0.1, logps: Literal["sum", "mean"] = "sum") -> Loss:
    """The IPO loss of P pairs, as the term "preference", with TRL's metrics.

        h = r(chosen) - r(rejected)       r(y) = lp(y) - lp_ref(y), or r(y) / m with 'mean'
        L = (h - 1 / (2 * tau))^2         eq. 17

    Its least value is at h = 1 / (2 * tau), for a preference that never fails too, where DPO's margin has no end. The paper
    writes the log-prob of the whole answer; TRL 1.16 divides by the answer's tokens and says that the authors did as well.
    A margin of 5 (tau 0.1) is small for a sum and large for a mean, so tau means another thing in each. The reward shown is
    tau * r of sums with both, as TRL shows it. Nats; totals are fp64 scalars; the reference gets no gradient. Raises
    ConfigError for an option out of range.

    Options:
        tau: Strength of the pull back to the reference, above 0: the margin aimed at is 1 / (2 tau). TRL calls it beta.
        logps: Whether log-probs are summed over an answer, as in the paper, or averaged over its tokens, as in TRL.
    """
    require_above_zero("tau", tau, fix="0.1 aims at a margin of 5 nats")
    require_choice("logps", logps, LOGPS)
    ratio = mean_log_ratio if logps == "mean" else log_ratio
    margin = ratio(policy.chosen, reference.chosen) - ratio(policy.rejected, reference.rejected)
    chosen = tau * log_ratio(policy.chosen, reference.chosen).detach()
    rejected = tau * log_ratio(policy.rejected, reference.rejected).detach()
    return Loss(
        terms=(Term("preference", (margin - 1 / (2 * tau)).square().sum(), unit="pairs"),),
        metrics=pair_metrics_beside_reference(policy, chosen, rejected),
    )

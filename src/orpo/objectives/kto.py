"""Kahneman-Tversky optimization: each answer is good or bad by itself, and its reward is judged against what the policy gives anything.

Ethayarajh, Xu, Muennighoff, Jurafsky, Kiela 2024, arXiv 2402.01306, equations 7 and 8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, LabelledLogps
from orpo.core.loss import Loss, Metric, Term
from orpo.objectives.labelled_metrics import labelled_metrics, sum_of_desirable, sum_of_undesirable
from orpo.objectives.log_ratio import log_ratio
from orpo.objectives.ranges import require_above_zero, require_not_negative


def kto(
    policy: LabelledLogps,
    reference: LabelledLogps,
    baseline: Tensor,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Loss:
    """The KTO loss of A labelled answers, as the terms "desirable" and "undesirable", with TRL's metrics.

        r(y) = lp(y) - lp_ref(y)                                        sums over tokens
        desirable     L = desirable_weight * (1 - sigmoid(beta * (r(y) - z0)))
        undesirable   L = undesirable_weight * (1 - sigmoid(beta * (z0 - r(y))))        eq. 7

    averaged over all answers of the step, of both kinds. `baseline` is z0, a scalar: make it once for the whole optimizer step
    by `mismatched_log_ratio` and `baseline_of` and give it to every micro-batch. It gets no gradient. With z0 given the loss
    is additive; a z0 of each micro-batch would make the step depend on how it was cut, as it does in TRL. The reward is beta * r.
    Nats; totals are fp64 scalars; the reference gets no gradient. Raises ConfigError for an option out of range.

    Options:
        beta: Factor that makes a log ratio to the reference a reward, above 0; a smaller one lets the policy move farther.
        desirable_weight: Weight of desirable answers, at least 0. By eq. 8 (desirable_weight * number desirable) over
            (undesirable_weight * number undesirable) should be 1 to 1.5; TRL 1.16 says 1 to 1.33.
        undesirable_weight: Weight of undesirable answers, at least 0.
    """
    require_above_zero("beta", beta, fix="0.1 is the usual start")
    require_not_negative("desirable_weight", desirable_weight, fix="1 is the paper's for as many desirable as undesirable answers")
    require_not_negative("undesirable_weight", undesirable_weight, fix="1 is the paper's for as many desirable as undesirable answers")
    ratio, z0 = log_ratio(policy.completion, reference.completion), baseline.detach().double()
    # 1 - sigmoid(x) is sigmoid(-x), without the cancellation.
    desirable = sum_of_desirable(policy, torch.sigmoid(-beta * (ratio - z0)))
    undesirable = sum_of_undesirable(policy, torch.sigmoid(-beta * (z0 - ratio)))
    return Loss(
        terms=(
            Term("desirable", desirable, unit="completions", weight=desirable_weight),
            Term("undesirable", undesirable, unit="completions", weight=undesirable_weight),
        ),
        metrics={"kl": Metric(z0 * len(ratio), unit="completions"), **labelled_metrics(policy, beta * ratio.detach())},
    )


def mismatched_log_ratio(policy: CompletionLogps, reference: CompletionLogps) -> Tensor:
    """The sum of r(x, y') over mismatched pairs, a detached fp64 scalar: log-probs of answers to prompts that they do not answer.

    x are the prompts of the step and y' its answers, each moved on to the next prompt (section 4 of the paper; TRL moves them on
    within each micro-batch). Sums of micro-batches and ranks add up; `baseline_of` makes z0 of the whole.
    """
    return log_ratio(policy, reference).detach().sum()


def baseline_of(total: Tensor, num: int) -> Tensor:
    """z0 = max(0, total / num), a detached fp64 scalar: the estimate of KL(policy || reference) over `num` mismatched pairs of the step.

    KL is never negative, its estimate may be; so the mean is clamped, and not each summand. Without any pair z0 is 0.
    """
    return (total.detach().double() / max(num, 1)).clamp(min=0.0)

"""How far a policy has moved from its reference: log-probs of both enter, log ratios and their metrics leave."""

from __future__ import annotations

import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.loss import Metric
from orpo.objectives.pair_metrics import pair_metrics


def log_ratio(policy: CompletionLogps, reference: CompletionLogps) -> Tensor:
    """r(y) = lp(y) - lp_ref(y) of summed log-probs, fp64, in the shape of `total`. The reference gets no gradient."""
    return policy.total.double() - reference.total.detach().double()


def mean_log_ratio(policy: CompletionLogps, reference: CompletionLogps) -> Tensor:
    """r(y) / m, the log ratio per token, fp64. A completion has at least one token; where there is none it is 0, as its sum is."""
    return log_ratio(policy, reference) / policy.num_tokens.clamp(min=1)


@torch.no_grad()
def pair_metrics_beside_reference(policy: PairLogps, chosen: Tensor, rejected: Tensor) -> dict[str, Metric]:
    """`pair_metrics`, with the implicit rewards [P] of both completions beside them: detached fp64 sums over pairs.

    A pair is told right (`rewards/accuracies`) by its rewards, not by its log-probs; a tie is not accurate.
    """
    return {
        **pair_metrics(policy),
        "rewards/chosen": Metric(chosen.sum()),
        "rewards/rejected": Metric(rejected.sum()),
        "rewards/margins": Metric((chosen - rejected).sum()),
        "rewards/accuracies": Metric((chosen > rejected).double().sum()),
    }

"""Supervised fine-tuning on the chosen answers: the baseline whose likelihood of the rejected answers rises too.

The first stage of DPO, and the comparison of the paper's Fig. 3 (Hong, Lee, Thorne 2024, arXiv 2403.07691).
"""

from __future__ import annotations

from typing import Literal

from orpo.core.logps import DemonstrationLogps
from orpo.core.loss import Loss, Metric
from orpo.objectives.likelihood import nll_term
from orpo.objectives.pair_metrics import pair_metrics


def sft(
    policy: DemonstrationLogps,
    *,
    nll_over: Literal["completion", "prompt+completion"] = "completion",
    nll_average: Literal["sequence", "token"] = "token",
) -> Loss:
    """The negative log-likelihood of the chosen answers of P pairs, as the term "nll".

    The rejected answers carry no gradient. Where they were computed (for held-out pairs; a training step leaves them out), their log-probs
    and odds are shown under the names ORPO shows them by.
    Nats; totals are fp64 scalars. Raises ConfigError for an unknown choice.

    Options:
        nll_over: What the likelihood covers, the chosen completion alone or its prompt as well.
        nll_average: Whether it averages over answers (each answer weighs the same) or over all tokens of the step
            (each token does).
    """
    nll = nll_term(policy, nll_over=nll_over, nll_average=nll_average)
    return Loss(terms=(nll,), metrics={"nll_loss": Metric(nll.total.detach(), unit=nll.unit), **pair_metrics(policy)})

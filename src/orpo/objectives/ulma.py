"""Unified language model alignment: desirable answers are learnt as demonstrations, undesirable ones pushed below a reference model.

Cai, Song, Jiang, Teng, Gu, Zhang 2023, arXiv 2312.02554, and the authors' code.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F

from orpo.core.logps import LabelledLogps
from orpo.core.loss import Loss, Metric, Term
from orpo.objectives.labelled_metrics import labelled_metrics, sum_of_desirable, sum_of_undesirable
from orpo.objectives.likelihood import NLL_AVERAGE, require_choice
from orpo.objectives.log_ratio import mean_log_ratio
from orpo.objectives.ranges import require_above_zero


def ulma(
    policy: LabelledLogps,
    reference: LabelledLogps,
    *,
    beta: float = 0.1,
    nll_average: Literal["sequence", "token"] = "sequence",
) -> Loss:
    """The ULMA loss of A labelled answers, as the terms "nll" and "undesirable", with TRL's metrics.

        desirable     L = -lp(y), averaged as `nll_average` says
        undesirable   L = -log sigmoid(-beta * (a(y) - a_ref(y)))       a(y) = lp(y) / m

    each averaged over the answers of its own kind in the step. The paper writes log-probs of whole answers and a normaliser
    log Z(x); the authors' code averages over tokens and sets log Z to the constant 0, and so does this. With desirable answers
    alone it is SFT of the same average. The reward is beta * (a(y) - a_ref(y)). Nats; totals are fp64 scalars; the reference
    gets no gradient. Raises ConfigError for an option out of range.

    Options:
        beta: Factor that makes a log ratio to the reference a reward, above 0; a smaller one lets the policy move farther.
        nll_average: Whether the likelihood term averages over answers (each answer weighs the same) or over all
            tokens of the step (each token does).
    """
    require_above_zero("beta", beta, fix="0.1 is the usual start")
    require_choice("nll_average", nll_average, NLL_AVERAGE)
    completion = policy.completion
    if nll_average == "token":
        nll = Term("nll", -sum_of_desirable(policy, completion.total.double()), unit="desirable_tokens")
    else:
        # A completion has at least one token.
        nll = Term("nll", -sum_of_desirable(policy, completion.total.double() / completion.num_tokens), unit="desirable")
    rewards = beta * mean_log_ratio(completion, reference.completion)
    undesirable = Term("undesirable", -sum_of_undesirable(policy, F.logsigmoid(-rewards)), unit="undesirable")
    return Loss(
        terms=(nll, undesirable),
        metrics={"nll_loss": Metric(nll.total.detach(), unit=nll.unit), **labelled_metrics(policy, rewards.detach())},
    )

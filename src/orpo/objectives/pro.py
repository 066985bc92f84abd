"""Preference ranking optimization: each answer of a ranking should be likelier than all below it, and the best one is learnt as well.

Song, Yu, Li, Yu, Huang, Li, Wang 2023, arXiv 2306.17492, and the authors' code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from orpo.core.logps import RankedLogps
from orpo.core.loss import Loss, Metric, Term
from orpo.errors import ConfigError
from orpo.objectives.likelihood import require_choice
from orpo.objectives.ranges import require_not_negative

NLL_LOGPS = ("sum", "mean")
TEMPERATURES = ("scores", "one")


def pro(
    policy: RankedLogps,
    *,
    weight: float = 0.05,
    nll_logps: Literal["sum", "mean"] = "sum",
    temperature: Literal["scores", "one"] = "scores",
) -> Loss:
    """The PRO loss of P rankings, as the terms "ranking" and "nll". Answer 1 is the best, K the number of answers of a ranking.

        L = -sum over k < K of log( exp(s_k / T_k) / (exp(s_k / T_k) + sum over j > k of exp(s_j / T_kj)) )
            + weight * (K - 1)^2 * NLL(1)                               s = a(y) = lp(y) / m
        'scores'   T_kj = 1 / (score_k - score_j), T_k = min over j > k of T_kj
        'one'      all T are 1

    With 'scores' answers that are ranked close are pulled apart less; of two with one score neither is pulled. (K - 1)^2 keeps
    the likelihood's share as rankings grow; it is 1 for a pair. For a pair with T = 1 the loss is
    -log sigmoid(s_1 - s_2) + weight * NLL(1). Nats; totals are fp64 scalars. Raises ConfigError for an option out of range, and
    where 'scores' meets rankings that have none.

    Options:
        weight: Weight of the best answer's likelihood, at least 0, times (K - 1)^2. The paper calls it beta, its code sft_weight.
        nll_logps: Whether that likelihood is the sum over the answer's tokens, as in the authors' code that 0.05 goes
            with, or the mean.
        temperature: Whether contrasts are as strong as the scores of the answers differ, as in the paper, or all the
            same, for data that give an order alone.
    """
    require_not_negative("weight", weight, fix="the paper takes 0.05; 0 leaves the ranking alone")
    require_choice("nll_logps", nll_logps, NLL_LOGPS)
    require_choice("temperature", temperature, TEMPERATURES)
    total, num_tokens = policy.completions.total.double(), policy.completions.num_tokens
    is_there = num_tokens > 0
    means = total / num_tokens.clamp(min=1)
    # Of [P, K], but the first column alone: a batch without rankings may have no column at all.
    nll = -(means if nll_logps == "mean" else total)[:, :1].sum(1)
    growth = (is_there.sum(1) - 1).square()
    ranking = _contrasts(means, is_there, _score_differences(policy.scores, means) if temperature == "scores" else None)
    return Loss(
        terms=(Term("ranking", ranking.sum(), unit="rankings"), Term("nll", (growth * nll).sum(), unit="rankings", weight=weight)),
        metrics={"nll_loss": Metric(nll.detach().sum(), unit="rankings"), **_ranking_metrics(means, is_there)},
    )


def _score_differences(scores: Tensor | None, means: Tensor) -> Tensor:
    """score_k - score_j, [P, K, K] of fp64: the inverse temperatures of the paper. Raises ConfigError without scores."""
    if scores is None:
        fix = "set temperature: one, which needs the order alone"
        raise ConfigError("temperature is 'scores', but these rankings have no scores", expected="a score for each answer", fix=fix)
    scores = scores.to(means.device, torch.float64)
    return scores[:, :, None] - scores[:, None, :]


def _is_below(is_there: Tensor) -> Tensor:
    """[P, K, K], true at k, j where answer j is there and ranked below answer k."""
    num = is_there.shape[1]
    return torch.ones(num, num, dtype=torch.bool, device=is_there.device).triu(1) & is_there[:, None, :]


def _contrasts(means: Tensor, is_there: Tensor, differences: Tensor | None) -> Tensor:
    """-log of each answer's share against those below it, [P, K]; 0 for the last answer of a ranking, which has none below.

    `differences` [P, K, K] are the inverse temperatures 1 / T_kj, None where all are 1.
    """
    below = _is_below(is_there)
    inverse = torch.where(below, 1.0 if differences is None else differences, 0.0).to(means.dtype)
    # 1 / T_k is the largest of its row; the column of zeros is for batches without any column.
    own = torch.cat([inverse, inverse.new_zeros(*inverse.shape[:2], 1)], dim=2).amax(2)
    exponents = means[:, None, :] * (inverse + torch.diag_embed(own))
    itself = torch.eye(means.shape[1], dtype=torch.bool, device=means.device)
    # Each row keeps its diagonal, so no row is -inf throughout, where logsumexp would have no gradient.
    return torch.logsumexp(exponents.masked_fill(~(below | itself), -torch.inf), dim=2) - exponents.diagonal(dim1=1, dim2=2)


@torch.no_grad()
def _ranking_metrics(means: Tensor, is_there: Tensor) -> dict[str, Metric]:
    """The names that pairs have, for the best answer against the mean of the others: detached fp64 sums over rankings.

    `rewards/accuracies` is the share of a ranking's pairs of answers that are in the right order; a tie is not.
    """
    below = _is_below(is_there)
    best = means[:, :1].sum(1)
    # A ranking has at least two answers, so one other and one pair.
    others = (means.sum(1) - best) / (is_there.sum(1) - 1).clamp(min=1)
    right = ((means[:, :, None] > means[:, None, :]) & below).double().sum((1, 2)) / below.sum((1, 2)).clamp(min=1)
    return {
        "logps/chosen": Metric(best.sum(), unit="rankings"),
        "logps/rejected": Metric(others.sum(), unit="rankings"),
        "rewards/accuracies": Metric(right.sum(), unit="rankings"),
    }

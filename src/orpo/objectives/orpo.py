"""Odds ratio preference optimization: likelihood of the chosen answer, and odds of chosen over rejected; no reference model.

Hong, Lee, Thorne 2024, arXiv 2403.07691, equations 3 to 7.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss, Metric, Term
from orpo.errors import ConfigError
from orpo.objectives.likelihood import nll_term
from orpo.objectives.pair_metrics import pair_metrics
from orpo.objectives.stable import log_odds


def orpo(
    policy: PairLogps,
    *,
    beta: float = 0.1,
    nll_over: Literal["completion", "prompt+completion"] = "completion",
    nll_average: Literal["sequence", "token"] = "sequence",
    odds_temperature: float = 1.0,
) -> Loss:
    """The ORPO loss of P pairs: NLL(chosen) + beta * L_OR, as the terms "nll" and "odds_ratio", with TRL's metrics.

        a(y) = log-prob of y / tokens of y                              eq. 3, P = e^a
        log odds(y) = a(y) - log(1 - e^a(y))                            eq. 4
        L_OR = -log sigmoid(log odds(chosen) - log odds(rejected))      eq. 5 and 7

    Its gradient is grad L_OR = -delta * h with delta = 1 / (1 + odds(chosen)/odds(rejected)) and
    h = grad a(chosen) / (1 - P(chosen)) - grad a(rejected) / (1 - P(rejected)); the paper prints the sign the other way.
    Value and gradient are finite for every log-prob up to and including 0; `odds_clamped` counts where that took the
    tangent of stable.log_odds. Nats; totals are fp64 scalars. Raises ConfigError for an option out of range.

    Options:
        beta: Weight of the odds ratio term, at least 0. The paper's lambda; alpha in its official code. 0 is SFT.
        nll_over: What the likelihood term covers, the chosen completion alone or its prompt as well.
        nll_average: Whether the likelihood term averages over answers (each answer weighs the same) or over all
            tokens of the step (each token does).
        odds_temperature: Factor on the log odds ratio inside the sigmoid, above 0. 1 is the paper; below 1 a pair
            that is already ranked right keeps pulling for longer (arXiv 2502.01237 calls it beta).
    """
    term, metrics = odds_ratio(policy, beta=beta, odds_temperature=odds_temperature)
    nll = nll_term(policy, nll_over=nll_over, nll_average=nll_average)
    return Loss(
        terms=(nll, term),
        metrics={"nll_loss": Metric(nll.total.detach(), unit=nll.unit), **metrics, **pair_metrics(policy)},
    )


def odds_ratio(policy: PairLogps, *, beta: float, odds_temperature: float) -> tuple[Term, dict[str, Metric]]:
    """L_OR of P pairs as the term "odds_ratio" of weight `beta`, and its metrics. Raises ConfigError for an option out of range."""
    _require_in_range(beta, odds_temperature)
    log_odds_ratio = log_odds(policy.chosen.mean) - log_odds(policy.rejected.mean)
    log_sigmoid = F.logsigmoid(odds_temperature * log_odds_ratio).sum()
    term = Term("odds_ratio", -log_sigmoid, unit="pairs", weight=beta)
    return term, {"log_odds_ratio": Metric(log_sigmoid.detach()), **_rewards(policy, beta)}


def _rewards(policy: PairLogps, beta: float) -> dict[str, Metric]:
    """TRL's implicit rewards, beta times the mean log-prob, as sums over pairs."""
    chosen: Tensor = beta * policy.chosen.mean.detach().double().sum()
    rejected: Tensor = beta * policy.rejected.mean.detach().double().sum()
    return {"rewards/chosen": Metric(chosen), "rewards/rejected": Metric(rejected), "rewards/margins": Metric(chosen - rejected)}


def _require_in_range(beta: float, odds_temperature: float) -> None:
    if not 0 <= beta < math.inf:
        raise ConfigError(f"beta is {beta}", expected="a finite number, 0 or more", fix="the paper takes 0.1 to 0.25; 0 is SFT")
    if not 0 < odds_temperature < math.inf:
        raise ConfigError(f"odds_temperature is {odds_temperature}", expected="a finite number above 0", fix="the paper takes 1")

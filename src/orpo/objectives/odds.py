"""The odds ratio of ORPO alone, without its likelihood term: for a second stage, on a model that was fine-tuned before.

Gorbatovski et al. 2025, arXiv 2502.01237; the term is equations 4, 5 and 7 of arXiv 2403.07691.
"""

from __future__ import annotations

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss
from orpo.objectives.orpo import odds_ratio
from orpo.objectives.pair_metrics import pair_metrics
from orpo.objectives.ranges import require_above_zero


def odds(policy: PairLogps, *, beta: float = 1.0, odds_temperature: float = 1.0) -> Loss:
    """The odds ratio loss of P pairs, as the term "odds_ratio" of `orpo`, with its metrics.

        L = beta * -log sigmoid(t * (log odds(chosen) - log odds(rejected)))

    beta scales the whole loss here, which AdamW takes out again but for the clipping of gradients: `odds_temperature`, t, is what
    decides. Nothing keeps the chosen answer likely: watch `logps/chosen`. Nats; totals are fp64 scalars. Raises ConfigError for
    an option out of range.

    Options:
        beta: Weight of the odds ratio term, above 0. It is the whole loss here, so the learning rate decides.
        odds_temperature: Factor on the log odds ratio inside the sigmoid, above 0. 1 is the paper; below 1 a pair
            that is already ranked right keeps pulling for longer (arXiv 2502.01237 calls it beta).
    """
    require_above_zero("beta", beta, fix="1 leaves the term as it is")
    term, metrics = odds_ratio(policy, beta=beta, odds_temperature=odds_temperature)
    return Loss(terms=(term,), metrics={**metrics, **pair_metrics(policy)})

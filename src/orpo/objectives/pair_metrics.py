"""What every objective on pairs shows beside its loss, whatever it optimises, so that runs can be laid side by side."""

from __future__ import annotations

import torch

from orpo.core.logps import ChosenLogps, DemonstrationLogps
from orpo.core.loss import Metric
from orpo.objectives.stable import log_odds, num_clamped


@torch.no_grad()
def pair_metrics(policy: DemonstrationLogps) -> dict[str, Metric]:
    """TRL's names for mean log-probs, accuracy and log odds, and our count of clamped odds: detached fp64 sums over pairs.

    Log-probs are means over a completion's tokens. A tie is not accurate. `log_odds_chosen` is log odds(chosen) - log
    odds(rejected), never tempered. `odds_clamped` counts completions, two to a pair, whose odds lie beyond stable.CLAMP.
    Without the rejected answers, what compares them is left out.
    """
    chosen = policy.chosen.mean.double()
    if isinstance(policy, ChosenLogps):
        return {"logps/chosen": Metric(chosen.sum()), "odds_clamped": Metric(num_clamped(chosen), unit="")}
    rejected = policy.rejected.mean.double()
    return {
        "logps/chosen": Metric(chosen.sum()),
        "logps/rejected": Metric(rejected.sum()),
        "rewards/accuracies": Metric((chosen > rejected).double().sum()),
        "log_odds_chosen": Metric((log_odds(chosen) - log_odds(rejected)).sum()),
        "odds_clamped": Metric(num_clamped(chosen) + num_clamped(rejected), unit=""),
    }

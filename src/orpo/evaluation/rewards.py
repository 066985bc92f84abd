"""A reward model on held-out pairs: does it score the chosen answer above the rejected one, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from orpo.core.intervals import mean_interval, wilson_interval
from orpo.core.tokens import TokenizedExample
from orpo.engine.batching import in_order
from orpo.engine.scores import ScoresModel, choose_score_path
from orpo.evaluation.preference import TOKENS_AT_ONCE, longest_row, measuring

FIGURES = (
    "num_pairs",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "rewards/chosen",
    "rewards/rejected",
    "margin",
    "margin_low",
    "margin_high",
)
"""The names of what `summarize` gives."""


@dataclass(frozen=True, slots=True)
class RewardScore:
    """One pair: the scores of both completions, in the reward model's own unit."""

    chosen: float
    rejected: float

    @property
    def lead(self) -> float:
        """The score of chosen minus that of rejected."""
        return self.chosen - self.rejected


def reward_scores(
    body: nn.Module,
    examples: Sequence[TokenizedExample],
    *,
    tokens_at_once: int = TOKENS_AT_ONCE,
    tick: Callable[[], None] = lambda: None,
) -> list[RewardScore]:
    """A score for each of `examples`, by the fastest path that the reward model `body` can take; `tick` is called after each.

    The model's mode is put back afterwards.
    """
    scores: list[RewardScore] = []
    with measuring(body, lambda: ScoresModel(body, path=choose_score_path(body, longest=longest_row(examples)).path)) as model:
        for batch in in_order(examples, tokens_at_once):
            found = model(batch)
            for chosen, rejected in zip(found.chosen.tolist(), found.rejected.tolist(), strict=True):
                scores.append(RewardScore(chosen, rejected))
                tick()
    return scores


def summarize(scores: list[RewardScore]) -> dict[str, float]:
    """Accuracy with its 95 % Wilson interval (a tie counts as wrong), mean scores, and the lead of chosen with its 95 % interval."""
    num = len(scores)
    right = sum(score.lead > 0 for score in scores)
    low, high = wilson_interval(right, num)
    margin, margin_low, margin_high = mean_interval([score.lead for score in scores])
    chosen, rejected = sum(score.chosen for score in scores) / num, sum(score.rejected for score in scores) / num
    return dict(zip(FIGURES, (num, right / num, low, high, chosen, rejected, margin, margin_low, margin_high), strict=True))

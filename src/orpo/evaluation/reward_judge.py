"""A reward model as a judge: each contest is a pair to it, scored on packs; the reply with the higher score is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from orpo.core.tokens import TokenizedExample
from orpo.data.row import Problem
from orpo.data.tokenize import IDENTICAL_TOKENS
from orpo.errors import ConfigError
from orpo.evaluation.judging import Contest
from orpo.evaluation.rewards import reward_scores

TIE_WITHIN = 1e-3
"""Scores this close are a tie: a hundred times the rounding of fp32, and 50.03 % by the model that rewards are trained by."""

Reads = Callable[[Sequence[Contest]], "list[TokenizedExample | Problem]"]
"""How contests become tokens of the reward model: the first reply as chosen, the second as rejected."""


@dataclass(frozen=True, slots=True)
class RewardJudge:
    """Scores each reply by itself, so it has no order. A blank reply, which has no token to score, is worse than any other."""

    name: str
    body: Any
    reads: Reads
    has_order: bool = False
    tie_within: float = TIE_WITHIN

    def leads(self, contests: Sequence[Contest]) -> list[float]:
        """The score of the first reply minus that of the second."""
        blank = [_blank_lead(contest) for contest in contests]
        read = iter(self.reads([contest for contest, lead in zip(contests, blank, strict=True) if lead is None]))
        items = [next(read) if lead is None else lead for lead in blank]
        scores = iter(reward_scores(self.body, [item for item in items if isinstance(item, TokenizedExample)]))
        return [next(scores).lead if isinstance(item, TokenizedExample) else self._unscored(item) for item in items]

    def _unscored(self, item: float | Problem) -> float:
        """The lead where nothing is scored. Raises ConfigError for replies that the reward model cannot read."""
        if not isinstance(item, Problem):
            return item
        if item.kind == IDENTICAL_TOKENS:
            return 0.0
        raise ConfigError(f"{self.name} cannot read a reply: {item.message}", where=str(item.source), doing="judging replies", fix=item.fix)


def _blank_lead(contest: Contest) -> float | None:
    """The lead where a reply is blank; None where neither is."""
    first, second = bool(contest.first.strip()), bool(contest.second.strip())
    return None if first and second else inf if first else -inf if second else 0.0

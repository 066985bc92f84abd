"""Which of two replies is better: contests and a judge enter, a decision for each leaves. No torch.

A judge that reads one reply after the other may prefer a place to a reply: it is asked in both orders, and what changes its mind is
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Protocol

from orpo.core.records import Source
from orpo.data.prompts import Prompt

WIN, TIE, LOSS = 1.0, 0.5, 0.0


@dataclass(frozen=True, slots=True)
class Contest:
    """Two replies to one prompt."""

    prompt: Prompt
    first: str
    second: str

    @property
    def source(self) -> Source:
        """The place of the prompt."""
        return self.prompt.source

    @property
    def swapped(self) -> Contest:
        """The same contest, the other reply first."""
        return replace(self, first=self.second, second=self.first)


class Judge(Protocol):
    """What judges contests. `has_order`: whether what it says may depend on which reply stands first.

    Leads of at most `tie_within` are a tie; they are in the judge's own unit.
    """

    @property
    def name(self) -> str: ...
    @property
    def has_order(self) -> bool: ...
    @property
    def tie_within(self) -> float: ...
    def leads(self, contests: Sequence[Contest]) -> list[float]:
        """By how much the first reply of each contest is better than the second, below 0 where it is worse; replies are read in order."""


@dataclass(frozen=True, slots=True)
class Decision:
    """WIN, TIE or LOSS of the first reply; `has_flipped`: the judge said another thing when it read the second reply first."""

    outcome: float
    has_flipped: bool = False


def decisions(judge: Judge, contests: Sequence[Contest]) -> list[Decision]:
    """A decision for each contest. Replies that are the same to the letter are a tie, without asking.

    A judge with an order reads each contest twice; a reply wins where both readings say so, and everything else is a tie.
    """
    asked = [contest for contest in contests if contest.first != contest.second]
    said = iter(_asked(judge, asked))
    return [Decision(TIE) if contest.first == contest.second else next(said) for contest in contests]


def _asked(judge: Judge, contests: Sequence[Contest]) -> list[Decision]:
    forward = [_outcome(lead, judge.tie_within) for lead in judge.leads(contests)]
    if not judge.has_order:
        return [Decision(outcome) for outcome in forward]
    backward = [1 - _outcome(lead, judge.tie_within) for lead in judge.leads([contest.swapped for contest in contests])]
    both = zip(forward, backward, strict=True)
    return [Decision(first) if first == second else Decision(TIE, has_flipped=True) for first, second in both]


def _outcome(lead: float, tie_within: float) -> float:
    assert not isnan(lead), "a judge said nothing at all"
    return TIE if abs(lead) <= tie_within else WIN if lead > 0 else LOSS

"""How often one model's replies are better than another's: decisions and lengths enter, a share with its intervals leaves. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orpo.core.intervals import wilson_interval
from orpo.evaluation.judging import LOSS, TIE, WIN, Decision

LENGTH_TOLERANCE = 0.1
"""Replies are of matched length where the shorter lacks at most this share of the longer."""

NUM_RESAMPLES = 10_000

FIGURES = (
    "num_prompts",
    "wins",
    "ties",
    "losses",
    "win_rate",
    "win_rate_low",
    "win_rate_high",
    "win_rate_bootstrap_low",
    "win_rate_bootstrap_high",
    "length_matched/num_prompts",
    "length_matched/win_rate",
    "length_matched/win_rate_low",
    "length_matched/win_rate_high",
    "mean_characters",
    "mean_characters_other",
    "num_flips",
)
"""The names of what `WinRate.figures` gives."""


@dataclass(frozen=True, slots=True)
class Share:
    """Wins, ties and losses over some prompts, at least one where a rate is asked for."""

    wins: int
    ties: int
    losses: int

    @property
    def num(self) -> int:
        """How many prompts."""
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float:
        """The share of wins, a tie being half of one."""
        return (self.wins + self.ties / 2) / self.num

    @property
    def wilson(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the rate, ties being half a win: with ties it is a little too wide, never too narrow."""
        return wilson_interval(self.wins + self.ties / 2, self.num)

    def bootstrap(self, *, seed: int = 0) -> tuple[float, float]:
        """The middle 95 % of the rates of NUM_RESAMPLES resamples of the prompts.

        How often each outcome is drawn is multinomial, so no resample is ever written out.
        """
        draw = np.random.default_rng(seed)
        counts = draw.multinomial(self.num, [self.wins / self.num, self.ties / self.num, self.losses / self.num], size=NUM_RESAMPLES)
        low, high = np.quantile((counts[:, 0] + counts[:, 1] / 2) / self.num, [0.025, 0.975])
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class WinRate:
    """The first model against the second. Lengths are in characters, which are the same for all tokenizers.

    `num_flips` is None for a judge that has no order.
    """

    every: Share
    length_matched: Share
    mean_characters: float
    mean_characters_other: float
    num_flips: int | None

    def figures(self) -> dict[str, float | None]:
        """FIGURES by name; None for what there is none of: a rate of no prompts, flips without an order."""
        low, high = self.every.wilson
        bootstrap_low, bootstrap_high = self.every.bootstrap()
        matched = self.length_matched
        matched_low, matched_high = matched.wilson if matched.num else (None, None)
        values = (
            *(self.every.num, self.every.wins, self.every.ties, self.every.losses),
            *(self.every.rate, low, high, bootstrap_low, bootstrap_high),
            *(matched.num, matched.rate if matched.num else None, matched_low, matched_high),
            *(self.mean_characters, self.mean_characters_other, self.num_flips),
        )
        return dict(zip(FIGURES, values, strict=True))


def win_rate(decided: Sequence[Decision], lengths: Sequence[tuple[int, int]], *, has_order: bool) -> WinRate:
    """The win rate of at least one decision; `lengths` has the characters of both replies of each."""
    assert decided, "a rate of nothing"
    matched = [decision for decision, pair in zip(decided, lengths, strict=True) if are_matched(*pair)]
    first, second = (sum(pair[side] for pair in lengths) / len(lengths) for side in (0, 1))
    num_flips = sum(decision.has_flipped for decision in decided) if has_order else None
    return WinRate(_share(decided), _share(matched), first, second, num_flips)


def are_matched(first: int, second: int) -> bool:
    """Whether two lengths differ by at most LENGTH_TOLERANCE of the longer."""
    return abs(first - second) <= LENGTH_TOLERANCE * max(first, second)


def _share(decided: Sequence[Decision]) -> Share:
    outcomes = [decision.outcome for decision in decided]
    return Share(outcomes.count(WIN), outcomes.count(TIE), outcomes.count(LOSS))

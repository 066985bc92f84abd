"""Whether the better answer is simply the longer one: lengths of pairs enter; figures, and a warning where they are lopsided, leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orpo.core.intervals import wilson_interval

LOPSIDED = 0.6
"""A share of pairs beyond this, or below its complement, is told: the whole 95 % interval must lie there."""
FEWEST_PAIRS = 50
"""Pairs of unequal length that it takes for a warning."""
RULE = f"told when the 95 % interval lies above {LOPSIDED:.0%} or below {1 - LOPSIDED:.0%}, from {FEWEST_PAIRS} pairs of unequal length on"


@dataclass
class LengthCounts:
    """Sums over pairs that grow while rows go by. Lengths are in `unit`, tokens or characters."""

    unit: str
    num_pairs: int = 0
    num_longer: int = 0
    num_shorter: int = 0
    total_chosen: int = 0
    total_rejected: int = 0

    def add(self, chosen: int, rejected: int) -> None:
        """Counts a pair."""
        self.num_pairs += 1
        self.num_longer += chosen > rejected
        self.num_shorter += chosen < rejected
        self.total_chosen += chosen
        self.total_rejected += rejected

    @property
    def is_lopsided(self) -> bool:
        """True when chosen answers are the longer ones, or the shorter ones, far more often than not."""
        num = self.num_longer + self.num_shorter
        if num < FEWEST_PAIRS:
            return False
        low, high = wilson_interval(self.num_longer, num)
        return low > LOPSIDED or high < 1 - LOPSIDED

    def figures(self) -> dict[str, Any]:
        """What a report has; empty for no pairs. The share is of pairs of unequal length, None where there are none."""
        if not self.num_pairs:
            return {}
        num = self.num_longer + self.num_shorter
        low, high = wilson_interval(self.num_longer, num) if num else (0.0, 1.0)
        return {
            "unit": self.unit,
            "pairs": self.num_pairs,
            "chosen_longer": self.num_longer,
            "chosen_shorter": self.num_shorter,
            "longer_share": round(self.num_longer / num, 4) if num else None,
            "longer_share_low": round(low, 4),
            "longer_share_high": round(high, 4),
            "mean_chosen": round(self.total_chosen / self.num_pairs, 2),
            "mean_rejected": round(self.total_rejected / self.num_pairs, 2),
            "mean_difference": round((self.total_chosen - self.total_rejected) / self.num_pairs, 2),
            "is_lopsided": self.is_lopsided,
            "rule": RULE,
        }


def length_sentence(figures: Mapping[str, Any]) -> str:
    """The figures of `LengthCounts` as a person reads them."""
    means = f"on average {figures['mean_chosen']:,.1f} {figures['unit']} against {figures['mean_rejected']:,.1f}"
    if figures["longer_share"] is None:
        return f"chosen and rejected have the same length in every pair, {means}"
    interval = f"95 % interval {100 * figures['longer_share_low']:.0f}-{100 * figures['longer_share_high']:.0f}"
    return f"chosen is the longer one in {100 * figures['longer_share']:.0f} % of pairs of unequal length ({interval}); {means}"

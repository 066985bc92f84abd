"""Claims and the rules that judge them: figures of several seeds enter, a verdict leaves. No verdict is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

Verdict = Literal["shown", "not shown", "opposite", "not measured"]

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom: with three or five seeds the normal one would promise too much."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, where it comes from, the rule that judges it here, what the rule says, and the figure that it read."""

    says: str
    source: str
    rule: str
    verdict: Verdict
    figure: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of `num` values with its 95 % interval."""

    mean: float
    low: float
    high: float
    num: int

    def __str__(self) -> str:
        return f"{signed(self.mean)} ({signed(self.low)} to {signed(self.high)})"


def signed(value: float) -> str:
    """The value with three digits behind the point and its sign, a true minus."""
    return f"{value:+.3f}".replace("-", "−")


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed, two to ten of them, with Student's interval."""
    num = len(values)
    assert 2 <= num <= len(T_95) + 1, f"an interval over {num} seeds"
    mean = sum(values) / num
    half = T_95[num - 2] * sqrt(sum((value - mean) ** 2 for value in values) / (num - 1) / num)
    return Estimate(mean, mean - half, mean + half, num)


def differences(left: Sequence[float], right: Sequence[float]) -> Estimate:
    """left - right, seed by seed."""
    return over_seeds([one - other for one, other in zip(left, right, strict=True)])


def is_above(estimate: Estimate, limit: float = 0.0) -> Verdict:
    """Shown where the whole interval lies above `limit`, opposite where it lies below, else not shown."""
    if estimate.low > limit:
        return "shown"
    return "opposite" if estimate.high < limit else "not shown"


def is_below(estimate: Estimate, limit: float = 0.0) -> Verdict:
    """Shown where the whole interval lies below `limit`, opposite where it lies above, else not shown."""
    return is_above(Estimate(-estimate.mean, -estimate.high, -estimate.low, estimate.num), -limit)


def all_of(*verdicts: Verdict) -> Verdict:
    """Of a claim with several parts: shown where each is, opposite where one of them is, else not shown."""
    if all(verdict == "shown" for verdict in verdicts):
        return "shown"
    return "opposite" if "opposite" in verdicts else "not shown"

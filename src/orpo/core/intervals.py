"""Intervals for the figures people compare. No torch."""

from __future__ import annotations

from math import sqrt

Z_95 = 1.959963984540054


def wilson_interval(successes: float, num: int, *, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a proportion, 95 % by default, of at least one trial. It stays inside [0, 1], at 0 and at all too."""
    assert num >= 1, "an interval of nothing"
    share = successes / num
    centre = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z * sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / (1 + z * z / num)
    # Rounding must not leave the share itself outside, at 0 and at all above all.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def mean_interval(values: list[float], *, z: float = Z_95) -> tuple[float, float, float]:
    """(mean, low, high) of at least one value, by the normal approximation with the sample's own variance."""
    assert values, "an interval of nothing"
    num = len(values)
    mean = sum(values) / num
    variance = sum((value - mean) ** 2 for value in values) / max(num - 1, 1)
    half = z * sqrt(variance / num)
    return mean, mean - half, mean + half

"""Intervals by two-level bootstrap: figures of some seeds on the same items enter, a mean with its 95 % interval leaves. Numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
LEVEL = 0.95
AT_ONCE = 2**23
"""Products of values and counts in memory at a time."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """The entry of compare.json."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def estimate(values: Values, *, weights: Sequence[float] | None = None, seed: int = 0) -> Estimate:
    """The weighted mean of `values` [seeds, items] over both, and its interval.

    Each of NUM_RESAMPLES resamples draws seeds, then items, with replacement, and takes the mean over all the drawn seeds' values of the
    drawn items: items are the same for every seed, as they are in the data. The interval is the middle 95 % of those means. Of n seeds
    n - 1 are drawn, and of items likewise, so that the variance of the means is unbiased, which matters for few seeds; a single one is
    always drawn, and says nothing of how seeds differ. The draws depend on `seed` and the shape alone: estimates of two pipelines on the
    same seeds and items, and of their difference, are made on the same resamples.
    """
    num_seeds, num_items = values.shape
    assert num_seeds, "an interval of no seeds"
    assert num_items, "an interval of no items"
    shares = np.ones(num_items) if weights is None else np.asarray(weights, dtype=np.float64)
    assert (shares > 0).all(), "an item without weight would be drawn in vain, and the sum of drawn weights could be 0"
    weighted = values * shares
    seeds, items = _resamples(num_seeds, num_items, seed)
    means = np.empty(NUM_RESAMPLES)
    step = max(1, AT_ONCE // num_items)
    for start in range(0, NUM_RESAMPLES, step):
        part = slice(start, start + step)
        totals = ((seeds[part] @ weighted) * items[part]).sum(axis=1)
        # At least one seed and one item are drawn, and no weight is 0.
        means[part] = totals / (seeds[part].sum(axis=1) * (items[part] @ shares))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(weighted.sum() / (num_seeds * shares.sum())), float(low), float(high))


@lru_cache(maxsize=4)
def _resamples(num_seeds: int, num_items: int, seed: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """How often each seed, and each item, is in each resample: [NUM_RESAMPLES, seeds] and [NUM_RESAMPLES, items]."""
    draw = np.random.default_rng(seed)
    sizes = (num_seeds, num_items)
    drawn = [draw.multinomial(max(1, size - 1), np.full(size, 1 / size), size=NUM_RESAMPLES).astype(np.int16) for size in sizes]
    return drawn[0], drawn[1]


def verdict(difference: Estimate, *, better: str) -> str:
    """'better', 'worse' or 'not told apart', by whether a difference's interval leaves out 0; 'different' where neither way is better."""
    if difference.low <= 0 <= difference.high:
        return "not told apart"
    if better == "none":
        return "different"
    return "better" if (difference.mean > 0) == (better == "higher") else "worse"

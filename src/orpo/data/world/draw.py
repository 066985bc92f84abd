"""Random draws that are the same on every machine and Python version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A stream of draws fixed by its seed text.

    Built on `Random.random` alone, the one generator whose sequence Python promises to keep; `choice` and `shuffle` are free to change.
    """

    def __init__(self, *seed: object) -> None:
        self._random = random.Random(":".join(str(part) for part in seed)).random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random() < probability

    def number(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def one_of(self, choices: Sequence[T]) -> T:
        """One of the choices, each as likely as the others."""
        return choices[int(self._random() * len(choices))]

    def some_of(self, choices: Sequence[T], num: int) -> tuple[T, ...]:
        """`num` different choices in drawn order."""
        left = list(choices)
        return tuple(left.pop(int(self._random() * len(left))) for _ in range(num))

    def weighted(self, choices: Sequence[tuple[T, float]]) -> T:
        """One of the choices, as likely as its weight says."""
        mark = self._random() * sum(weight for _, weight in choices)
        for choice, weight in choices:
            mark -= weight
            if mark < 0:
                return choice
        return choices[-1][0]

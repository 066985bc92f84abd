"""Where a value lies on paper: value ranges enter, ticks and coordinates leave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10

from orpo.report.numbers import MINUS, short

WIDTH, HEIGHT = 460, 272
LEFT, RIGHT, TOP, BOTTOM = 50, 116, 26, 30
TARGET_TICKS = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """The plotting area in units of the drawing, and the range of values it shows."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    margin: float = RIGHT

    @property
    def right(self) -> float:
        """Where the plotting area ends and the labels begin."""
        return WIDTH - self.margin

    def x(self, value: float) -> float:
        """The horizontal place of `value`; a range of one step puts it at the left."""
        span = (self.high_x - self.low_x) or 1.0
        return LEFT + (self.right - LEFT) * (value - self.low_x) / span

    def y(self, value: float) -> float:
        """The vertical place of `value`, at the edge when it lies beyond it (callers count those with `is_outside`)."""
        inside = min(max(value, self.low_y), self.high_y)
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high_y - inside) / (self.high_y - self.low_y)

    def is_outside(self, value: float) -> bool:
        """True when `value` lies above or below the frame."""
        return not self.low_y <= value <= self.high_y


@dataclass(frozen=True, slots=True)
class Across:
    """A horizontal scale of its own: values from `low` to `high` lie from `left` to `right`."""

    low: float
    high: float
    left: float
    right: float

    def x(self, value: float) -> float:
        """The place of `value`, at the edge when it lies beyond it."""
        inside = min(max(value, self.low), self.high)
        return self.left + (self.right - self.left) * (inside - self.low) / ((self.high - self.low) or 1.0)


def value_range(lines: Iterable[float], dots: list[float]) -> tuple[float, float]:
    """(low, high) that holds all of `lines` and the middle 98 % of `dots`, with a margin; one wild step must not flatten a curve."""
    ordered = sorted(dots)
    cut = len(ordered) // 100
    values = [*lines, *ordered[cut : len(ordered) - cut]]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-6)
    return low - margin, high + margin


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """About four round values within [low, high]: 1, 2 or 5 times a power of ten apart, whole numbers for steps."""
    if not high > low:
        return [low]
    rough = (high - low) / TARGET_TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= 0.7 * rough)
    step = max(step, 1.0) if whole else step
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_labels(values: list[float]) -> list[str]:
    """`values` spelled with the same number of decimals, as many as their distance needs; very large and small ones by their digits."""
    step = values[1] - values[0] if len(values) > 1 else abs(values[0])
    if not 0.001 <= step < 1000 or max(map(abs, values)) >= 10_000:
        return ["0" if abs(value) < step / 1000 else short(value) for value in values]
    decimals = max(0, -floor(log10(step) + 1e-9))
    return [f"{0.0 if abs(value) < step / 1000 else value:.{decimals}f}".replace("-", MINUS) for value in values]


def spread(places: list[float], gap: float, *, low: float, high: float) -> list[float]:
    """`places` moved apart as little as needed so that neighbours are `gap` apart, order kept, within [low, high] where they fit."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [min(max(places[i], low), high) for i in order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    if moved and moved[-1] > high:
        moved[-1] = high
        for i in reversed(range(len(moved) - 1)):
            moved[i] = min(moved[i], moved[i + 1] - gap)
    placed = dict(zip(order, moved, strict=True))
    return [placed[i] for i in range(len(places))]

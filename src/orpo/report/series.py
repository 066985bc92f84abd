"""From rows of metrics.jsonl to curves: rows enter, points, smoothed points and thinned points leave, with the rules in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, TypeVar

from orpo.report.numbers import as_number

Row = Mapping[str, Any]
Point = tuple[float, float]
T = TypeVar("T")

MAX_POINTS = 200
SMALLEST_WINDOW = 5
FEWEST_POINTS_TO_SMOOTH = 10


@dataclass(frozen=True, slots=True)
class Curve:
    """The logged points of one quantity: `raw` as logged, `smooth` the means drawn over them (`raw` itself when there are few)."""

    raw: tuple[Point, ...]
    smooth: tuple[Point, ...]
    window: int
    num_not_finite: int = 0

    @property
    def is_smoothed(self) -> bool:
        """True when `smooth` holds means and not the points themselves."""
        return self.window > 1


def curve(rows: Iterable[Row], key: str, *, scale: float = 1.0) -> Curve:
    """The curve of `scale` times `key` over the step; rows without the key are passed over, a null in its place is counted."""
    raw, not_finite = [], 0
    for row in rows:
        step, value = as_number(row.get("step")), as_number(row.get(key))
        if step is not None and value is not None:
            raw.append((step, scale * value))
        elif key in row:
            not_finite += 1
    raw.sort(key=lambda point: point[0])
    window = window_size(len(raw))
    return Curve(tuple(raw), means(raw, window), window, not_finite)


def window_size(num_points: int) -> int:
    """How many logged points one mean covers: 1 below 10 points, else 5 or a thirtieth of all, whichever is more; always odd."""
    if num_points < FEWEST_POINTS_TO_SMOOTH:
        return 1
    return max(SMALLEST_WINDOW, num_points // 30) | 1


def means(points: list[Point], window: int) -> tuple[Point, ...]:
    """The mean of `window` points around each of at most MAX_POINTS points, first and last among them; fewer neighbours at the ends."""
    num, half = len(points), window // 2
    smooth = []
    for i in evenly(range(num), MAX_POINTS):
        near = [y for _, y in points[max(0, i - half) : i + half + 1]]
        smooth.append((points[i][0], fsum(near) / len(near)))
    return tuple(smooth)


def evenly(items: Sequence[T], most: int) -> tuple[T, ...]:
    """At most `most` (two or more) of `items` in even steps, first and last among them."""
    num = len(items)
    return tuple(items) if num <= most else tuple(items[round(i * (num - 1) / (most - 1))] for i in range(most))


def thin(points: tuple[Point, ...], *, most: int = MAX_POINTS) -> tuple[Point, ...]:
    """At most `most` of `points`: the lowest and the highest of each of most/2 runs of equal length, so that no spike is lost."""
    if len(points) <= most:
        return points
    runs, kept = most // 2, []
    for run in range(runs):
        part = points[run * len(points) // runs : (run + 1) * len(points) // runs]
        lowest, highest = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        kept += sorted({lowest, highest})
    return tuple(kept)


def rule_in_words(shown: Curve) -> str:
    """How the points of training were made into a line, to be printed under it."""
    if not shown.raw:
        return ""
    if not shown.is_smoothed:
        return "Thin lines: training, each logged point."
    side = shown.window // 2
    text = f"Dots: training, as logged. Thin lines: mean of {shown.window} points ({side} on each side, fewer at the ends)."
    if len(shown.raw) > MAX_POINTS:
        text += f" Of {len(shown.raw)} logged points the lowest and highest of each of {MAX_POINTS // 2} equal runs are drawn as dots."
    return text

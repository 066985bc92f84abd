"""Figures as a reader compares them: a metric and a value enter, a spelling leaves that is the same on the whole page."""

from __future__ import annotations

from orpo.report import axes
from orpo.report.comparison.reading import Estimate, Metric
from orpo.report.markup import Html, join
from orpo.report.numbers import MINUS, THIN_SPACE, count, datum

SHARES = frozenset({"oracle/score", "oracle/correct", "oracle/manner", "accuracy", "accuracy_sum", "win_rate"})
"""Metrics between 0 and 1 that are shares of something, and are spelled in per cent."""


def is_share(metric: Metric) -> bool:
    """True for what is spelled in per cent, its differences in percentage points."""
    return metric.id in SHARES or metric.unit in ("%", "share")


def plain(metric: Metric, value: float) -> str:
    """`value` without its unit."""
    if is_share(metric):
        return f"{100 * value:.1f}".replace("-", MINUS)
    decimals = 1 if metric.unit == "tokens" else 3
    return count(value) if abs(value) >= 1000 else f"{value:.{decimals}f}".replace("-", MINUS)


def spelled(metric: Metric, value: float) -> str:
    """`value` with its per cent sign, or without a unit, which stands in the title."""
    return plain(metric, value) + (f"{THIN_SPACE}%" if is_share(metric) else "")


def signed(metric: Metric, value: float) -> str:
    """A difference, its sign always there."""
    text = plain(metric, value)
    if not any(digit in text for digit in "123456789"):
        return text.removeprefix(MINUS)
    return text if value < 0 else f"+{text}"


def unit(metric: Metric) -> str:
    """The unit of a value in words; nothing for a share."""
    return "" if is_share(metric) else metric.unit


def unit_of_difference(metric: Metric) -> str:
    """The unit of a difference in words."""
    return "percentage points" if is_share(metric) else metric.unit


def exact(metric: Metric, value: float | None, *, class_: str | None = None) -> Html:
    """`value` spelled, with the exact one beside it."""
    return datum(value, "" if value is None else spelled(metric, value), class_=class_)


def exact_difference(metric: Metric, value: float | None) -> Html:
    """A difference spelled, with the exact one beside it."""
    return datum(value, "" if value is None else signed(metric, value))


def interval(metric: Metric, estimate: Estimate) -> Html | None:
    """'81.0 to 85.7'; None where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return None
    return join([datum(estimate.low, plain(metric, estimate.low)), " to ", datum(estimate.high, plain(metric, estimate.high))])


def interval_of_difference(metric: Metric, estimate: Estimate) -> Html | None:
    """'+1.0 to +5.2'; None where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return None
    return join([exact_difference(metric, estimate.low), " to ", exact_difference(metric, estimate.high)])


def tick_labels(metric: Metric, values: list[float], *, is_difference: bool = False) -> list[str]:
    """The labels of an axis."""
    if is_share(metric):
        labels = axes.tick_labels([100 * value for value in values])
        return labels if is_difference else [f"{label}{THIN_SPACE}%" for label in labels]
    return axes.tick_labels(values)

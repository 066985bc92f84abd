"""Dots with their intervals, one row a pipeline: rows enter, a `<figure>` leaves. No bars: a scale of scores need not begin at 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orpo.report import axes
from orpo.report.axes import Across
from orpo.report.comparison.reading import Estimate
from orpo.report.labels import fitted, fitted_names, text_width
from orpo.report.markup import Html, element
from orpo.report.series import evenly

WIDTH, ROW, TOP, BOTTOM = 460, 36, 34, 24
NAMES, SIDE = 150, 84
MAX_SEEDS = 40


@dataclass(frozen=True, slots=True)
class Row:
    """A pipeline on the drawing: `said` and `beneath` stand at its right, `style` names its colour in comparison.css."""

    name: str
    detail: str
    estimate: Estimate | None
    said: str
    beneath: str
    style: str
    is_baseline: bool = False


@dataclass(frozen=True, slots=True)
class DotChart:
    """A figure of rows. `reference` is a vertical line: its label and its estimate. `limits` bound the scale, as 0 and 1 do for shares."""

    id: str
    title: str
    unit: str
    rows: tuple[Row, ...]
    tick_labels: Callable[[list[float]], list[str]]
    reference: tuple[str, Estimate] | None = None
    limits: tuple[float, float] | None = None
    note: str = ""
    scale: Across = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _scale(self))

    @property
    def height(self) -> int:
        """The height of the drawing."""
        return TOP + ROW * len(self.rows) + BOTTOM


def figure(chart: DotChart) -> Html:
    """The chart with its title, the drawing, and its caption."""
    heading = element("h3", element("span", chart.title), " ", element("span", chart.unit, class_="keys"))
    caption = element("figcaption", chart.note) if chart.note else None
    return element("figure", heading, _drawing(chart), caption, id=chart.id)


def _scale(chart: DotChart) -> Across:
    estimates = [row.estimate for row in chart.rows if row.estimate] + ([chart.reference[1]] if chart.reference else [])
    values = [value for one in estimates for value in (one.mean, one.low, one.high, *one.per_seed) if value is not None]
    low, high = axes.value_range(values or [0.0], [])
    if chart.limits:
        low, high = max(low, chart.limits[0]), min(high, chart.limits[1])
    widest = max(width for row in chart.rows for width in (text_width(fitted(row.name, NAMES)), text_width(row.detail, size=11.5)))
    return Across(low, high, min(NAMES, max(widest, 40.0)) + 20, WIDTH - SIDE - 14)


def _drawing(chart: DotChart) -> Html:
    title = element("title", chart.title, id=f"{chart.id}-title")
    said = element("desc", " ".join(_spoken(row) for row in chart.rows), id=f"{chart.id}-desc")
    names = fitted_names([row.name for row in chart.rows], NAMES)
    rows = [_row(chart, row, name, TOP + ROW * i + ROW / 2) for i, (row, name) in enumerate(zip(chart.rows, names, strict=True))]
    return element(
        "svg",
        title,
        said,
        _grid(chart),
        _reference(chart),
        *rows,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {chart.height}",
        role="img",
        aria_labelledby=f"{chart.id}-title {chart.id}-desc",
    )


def _grid(chart: DotChart) -> Html:
    scale, bottom, parts = chart.scale, chart.height - BOTTOM, []
    values = axes.ticks(scale.low, scale.high)
    last = -1e9
    for value, label in zip(values, chart.tick_labels(values), strict=True):
        x = scale.x(value)
        parts.append(element("line", class_="grid", x1=_at(x), x2=_at(x), y1=TOP, y2=bottom))
        has_room = x - last > text_width(label, size=11.5) + 6
        parts.append(element("text", label if has_room else "", class_="axis", x=_at(x), y=bottom + 17, text_anchor="middle"))
        last = x if has_room else last
    for i in range(len(chart.rows) + 1):
        parts.append(element("line", class_="grid", x1=0, x2=WIDTH, y1=TOP + ROW * i, y2=TOP + ROW * i))
    return element("g", *parts, aria_hidden="true")


def _reference(chart: DotChart) -> Html | None:
    """The vertical line, tinted as wide as its interval, with its label above."""
    if chart.reference is None:
        return None
    (label, estimate), scale, bottom = chart.reference, chart.scale, chart.height - BOTTOM
    x, parts = scale.x(estimate.mean), []
    if estimate.low is not None and estimate.high is not None:
        low, high = _at(scale.x(estimate.low)), _at(scale.x(estimate.high))
        parts.append(element("path", class_="band", d=f"M{low} {TOP}H{high}V{bottom}H{low}Z"))
    parts.append(element("line", class_="reference", x1=_at(x), x2=_at(x), y1=TOP - 5, y2=bottom))
    half = text_width(label, size=11.5) / 2
    middle = min(max(x, half), WIDTH - half)
    parts.append(element("text", label, class_="axis", x=_at(middle), y=TOP - 11, text_anchor="middle"))
    return element("g", *parts, class_="plain")


def _row(chart: DotChart, row: Row, name: str, y: float) -> Html:
    left = chart.scale.left - 14
    texts = [
        _text(name, x=left, y=y - (6 if row.detail else 0), class_="label row", text_anchor="end"),
        _text(row.detail, x=left, y=y + 9, class_="axis", text_anchor="end") if row.detail else None,
        _text(row.said, x=WIDTH, y=y - (6 if row.beneath else 0), class_="label value", text_anchor="end"),
        _text(row.beneath, x=WIDTH, y=y + 9, class_="axis", text_anchor="end") if row.beneath else None,
    ]
    return element("g", _marks(chart.scale, row, y), *texts, class_=row.style)


def _marks(scale: Across, row: Row, y: float) -> Html | None:
    one = row.estimate
    if one is None:
        return None
    x, parts = scale.x(one.mean), []
    dots = "".join(f"M{_at(scale.x(seed))} {_at(y + 10)}h0" for seed in evenly(one.per_seed, MAX_SEEDS))
    if dots:
        parts.append(element("path", class_="seeds", d=dots))
    if one.low is not None and one.high is not None:
        low, high = _at(scale.x(one.low)), _at(scale.x(one.high))
        parts.append(element("path", class_="whisker", d=f"M{low} {_at(y)}H{high}M{low} {_at(y - 4)}v8M{high} {_at(y - 4)}v8"))
    if row.is_baseline:  # a square: the one that the others are compared with is found without colour
        parts.append(element("path", class_="square", d=f"M{_at(x - 5)} {_at(y - 5)}h10v10h-10Z"))
    else:
        parts.append(element("circle", class_="dot", cx=_at(x), cy=_at(y), r=5))
    return element("g", *parts)


def _text(text: str, *, x: float, y: float, class_: str, text_anchor: str) -> Html:
    return element("text", text, class_=class_, x=_at(x), y=_at(y), dy="0.35em", text_anchor=text_anchor)


def _spoken(row: Row) -> str:
    return ", ".join(part for part in (f"{fitted(row.name, 200)}: {row.said}", row.beneath, row.detail) if part) + "."


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

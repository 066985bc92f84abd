"""Score against cost: a comparison enters, two scatter charts leave, with intervals and a name at each point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orpo.report import axes
from orpo.report.axes import HEIGHT, LEFT, TOP, WIDTH, Frame
from orpo.report.comparison.outcome import TONES, measured, outcome
from orpo.report.comparison.reading import Comparison, Estimate, Metric, Pipeline
from orpo.report.comparison.spelling import is_share, spelled, tick_labels
from orpo.report.comparison.verdict import total_tokens
from orpo.report.labels import fitted, fitted_names, text_width
from orpo.report.markup import Html, element, join
from orpo.report.numbers import as_number, duration, short
from orpo.report.placing import Box, label_boxes
from orpo.report.whole_page import note

LABEL = 118
LINE = 14.0
FROM_ZERO, ALIKE = 0.7, 0.02
"""The cost axis begins at 0, unless costs that differ all lie within the uppermost 30 % of it: there they would hide each other."""


@dataclass(frozen=True, slots=True)
class Point:
    """A pipeline: what it cost, what it scored, and its class in comparison.css."""

    name: str
    cost: float
    score: Estimate
    style: str
    is_baseline: bool


def scatter_section(comparison: Comparison) -> Html | None:
    """The main metric against tokens and against seconds; None where fewer than two pipelines have both."""
    metrics = measured(comparison)
    if not metrics:
        return None
    kinds: tuple[tuple[str, str, Callable[[Pipeline], float | None], Callable[[float], str]], ...] = (
        ("tokens", "tokens computed", total_tokens, short),
        ("seconds", "seconds of training", lambda pipeline: as_number(pipeline.total.get("seconds")), duration),
    )
    figures = [_figure(comparison, metrics[0], name, title, cost, said) for name, title, cost, said in kinds]
    shown = [figure for figure in figures if figure]
    if not shown:
        return None
    said = "Training of all stages, mean over seeds, tuning aside. Whisker: 95\u202f% interval. Square: the baseline."
    better = {"higher": " Up and to the left is better.", "lower": " Down and to the left is better.", "none": ""}[metrics[0].better]
    return join([note(said + better), element("div", *shown, class_="figures")])


def _figure(
    comparison: Comparison, metric: Metric, name: str, title: str, cost: Callable[[Pipeline], float | None], said: Callable[[float], str]
) -> Html | None:
    points = [
        Point(pipeline.name, found, pipeline.scores[metric.id], _style(metric, pipeline), pipeline.is_baseline)
        for pipeline in comparison.pipelines
        if metric.id in pipeline.scores and (found := cost(pipeline)) is not None
    ]
    if len(points) < 2:
        return None
    frame = _frame(metric, points)
    id_ = f"against-{name}"
    heading = element("h3", element("span", f"{metric.title} against {title}"))
    caption = element("figcaption", f"The axis of {title} begins at {said(frame.low_x) if frame.low_x else '0'}.")
    spoken = " ".join(f"{fitted(point.name, 400)}: {spelled(metric, point.score.mean)}, {said(point.cost)}." for point in points)
    titles = [
        element("title", f"{metric.title} against {title}", id=f"{id_}-title"),
        element("desc", spoken, id=f"{id_}-desc"),
    ]
    on_top = sorted(points, key=lambda point: point.is_baseline)
    layers = [_grid(metric, frame, title), *(_point(frame, point) for point in on_top), _labels(frame, points)]
    drawing = element(
        "svg",
        *titles,
        *layers,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT + 14}",
        role="img",
        aria_labelledby=f"{id_}-title {id_}-desc",
    )
    return element("figure", heading, drawing, caption, id=id_)


def _style(metric: Metric, pipeline: Pipeline) -> str:
    return "base" if pipeline.is_baseline else TONES[outcome(metric, pipeline.against.get(metric.id))]


def _frame(metric: Metric, points: list[Point]) -> Frame:
    edges = [value for point in points for value in (point.score.mean, point.score.low, point.score.high) if value is not None]
    low, high = axes.value_range(edges, [])
    costs = [point.cost for point in points]
    margin = 0.06 * (max(costs) - min(costs)) or 0.05 * max(costs) or 1.0
    is_crowded = min(costs) >= FROM_ZERO * max(costs) and max(costs) - min(costs) > ALIKE * max(costs)
    start = min(costs) - margin if is_crowded else 0.0
    low, high = (max(low, 0.0), min(high, 1.0)) if is_share(metric) else (low, high)
    return Frame(start, max(costs) + margin, low, high)


def _grid(metric: Metric, frame: Frame, title: str) -> Html:
    right, parts = frame.right, []
    values = axes.ticks(frame.low_y, frame.high_y)
    for value, label in zip(values, tick_labels(metric, values), strict=True):
        y = _at(frame.y(value))
        parts.append(element("line", class_="grid", x1=LEFT, x2=right, y1=y, y2=y))
        parts.append(element("text", label, class_="axis", x=LEFT - 7, y=y, dy="0.35em", text_anchor="end"))
    values = axes.ticks(frame.low_x, frame.high_x)
    for value, label in zip(values, axes.tick_labels(values), strict=True):
        parts.append(element("text", label, class_="axis", x=_at(frame.x(value)), y=HEIGHT - 10, text_anchor="middle"))
    parts.append(element("text", f"{title} \u2192", class_="axis", x=right, y=HEIGHT + 7, text_anchor="end"))
    return element("g", *parts, aria_hidden="true")


def _point(frame: Frame, point: Point) -> Html:
    x, y, parts = frame.x(point.cost), frame.y(point.score.mean), []
    if point.score.low is not None and point.score.high is not None:
        parts.append(element("path", class_="whisker", d=f"M{_at(x)} {_at(frame.y(point.score.low))}V{_at(frame.y(point.score.high))}"))
    if point.is_baseline:
        parts.append(element("path", class_="square", d=f"M{_at(x - 5)} {_at(y - 5)}h10v10h-10Z"))
    else:
        parts.append(element("circle", class_="dot", cx=_at(x), cy=_at(y), r=5))
    return element("g", *parts, class_=point.style)


def _labels(frame: Frame, points: list[Point]) -> Html:
    """A name at each point, and one path of hair lines from points to the names that had to move away."""
    places = [(frame.x(point.cost), frame.y(point.score.mean)) for point in points]
    names = fitted_names([point.name for point in points], LABEL)
    obstacles = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    for point, (x, _) in zip(points, places, strict=True):
        if point.score.low is not None and point.score.high is not None:
            obstacles.append(Box(x - 2, frame.y(point.score.high) - 3, x + 2, frame.y(point.score.low) + 3))
    boxes = label_boxes(
        places,
        [text_width(name) for name in names],
        height=LINE,
        within=Box(LEFT - 6, TOP - 12, WIDTH + 4, HEIGHT - 22),
        obstacles=obstacles,
    )
    hairs = "".join(_hair(place, box) for place, box in zip(places, boxes, strict=True))
    texts = [
        element("text", name, class_="label", x=_at(box.left), y=_at(box.top + LINE / 2), dy="0.35em")
        for name, box in zip(names, boxes, strict=True)
    ]
    return element("g", element("path", class_="hair", d=hairs or "M0 0"), *texts)


def _hair(place: tuple[float, float], box: Box) -> str:
    """A line to the nearest place of the label's edge, where that is not beside the point anyway."""
    x, y = place
    end_x, end_y = min(max(x, box.left), box.right), min(max(y, box.top + 3), box.bottom - 3)
    return f"M{_at(x)} {_at(y)}L{_at(end_x)} {_at(end_y)}" if (end_x - x) ** 2 + (end_y - y) ** 2 > 150 else ""


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

"""Line charts as inline SVG: lines enter, a `<figure>` leaves.

Drawn here and not by matplotlib (which makes the picture of the model card): its SVG carries colours and glyph outlines,
so it cannot follow the reader's light or dark theme, its text is not text to a screen reader, and one chart weighs
30 to 100 KB. Here colours and type live in page.css, each line is told apart by dash and label as well as by colour,
and a chart weighs some 10 KB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orpo.report import axes, numbers
from orpo.report.axes import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Frame
from orpo.report.labels import fitted
from orpo.report.markup import Html, element
from orpo.report.series import Curve, Point, evenly, rule_in_words, thin

EMPTY = Curve((), (), 1)
LABEL_GAP = 17
MAX_CIRCLES = 25
SHARES = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity over the steps. `style` names its colour and dash in page.css; `band` holds (step, low, high) of its intervals."""

    name: str
    style: str
    train: Curve = EMPTY
    held_out: Curve = EMPTY
    band: tuple[tuple[float, float, float], ...] = ()

    @property
    def emphasised(self) -> tuple[Point, ...]:
        """What the label at the right end speaks of: the held-out points, or the smoothed training line where there are none."""
        return self.held_out.raw or self.train.smooth


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure. `keys` are the metric names as in metrics.jsonl; `between` names two lines whose gap is tinted and what the gap is.

    `limits` and `steps` fix the scales, so that charts side by side can be compared; `margin` is the room for the labels at the right;
    `stages` are marked where they begin, by name.
    """

    id: str
    title: str
    keys: tuple[str, ...]
    unit: str
    lines: tuple[Line, ...]
    note: str = ""
    spelled: Callable[[float], str] = numbers.nats
    limits: tuple[float, float] | None = None
    marks: tuple[float, ...] = ()
    between: tuple[int, int] | None = None
    steps: tuple[float, float] | None = None
    margin: int = RIGHT
    stages: tuple[tuple[float, str], ...] = ()
    frame: Frame = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", _frame(self))


def reading_note(charts: tuple[Chart, ...]) -> str:
    """How the lines of all `charts` were made from logged points, each rule once, to stand above them."""
    rules = dict.fromkeys(rule_in_words(line.train) for chart in charts for line in chart.lines if line.train.raw)
    held_out = any(line.held_out.raw for chart in charts for line in chart.lines)
    return " ".join(
        [*rules, f"Thick lines: held-out pairs, with a circle at up to {MAX_CIRCLES} of the measurements." if held_out else ""]
    ).strip()


def figure(chart: Chart) -> Html:
    """The chart with its title, its metric keys, the drawing, and the caption that states what it shows and what it leaves out."""
    keys = [element("code", key) for key in chart.keys]
    heading = element("h3", element("span", chart.title), " ", element("span", *keys, class_="keys"))
    return element("figure", heading, _drawing(chart), element("figcaption", " ".join(_caption(chart))), id=chart.id)


def _frame(chart: Chart) -> Frame:
    steps = [x for line in chart.lines for x, _ in (*line.train.raw, *line.held_out.raw)]
    drawn = [y for line in chart.lines for _, y in (*line.train.smooth, *line.held_out.raw)]
    drawn += [edge for line in chart.lines for _, *edges in line.band for edge in edges] + list(chart.marks)
    low, high = chart.limits or axes.value_range(drawn, [y for line in chart.lines for _, y in line.train.raw])
    return Frame(*(chart.steps or (min(steps), max(steps))), low, high, chart.margin)


def _drawing(chart: Chart) -> Html:
    title = element("title", chart.title, id=f"{chart.id}-title")
    description = element("desc", " ".join(_spoken(chart, line) for line in chart.lines), id=f"{chart.id}-desc")
    layers = [_grid(chart), _stages(chart), _gap(chart), *(_line(chart, line) for line in chart.lines), _labels(chart)]
    return element(
        "svg",
        title,
        description,
        *layers,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{chart.id}-title {chart.id}-desc",
    )


def _grid(chart: Chart) -> Html:
    frame, right = chart.frame, chart.frame.right
    parts = [element("text", chart.unit, class_="axis", x=0, y=11)]
    shares = chart.limits == SHARES
    values = [0.0, 0.25, 0.5, 0.75, 1.0] if shares else axes.ticks(frame.low_y, frame.high_y)
    for value, label in zip(values, map(numbers.percent, values) if shares else axes.tick_labels(values), strict=True):
        y = _at(frame.y(value))
        kind = "mark" if value in chart.marks else "grid"
        parts.append(element("line", class_=kind, x1=LEFT, x2=right, y1=y, y2=y))
        parts.append(element("text", label, class_="axis", x=LEFT - 7, y=y, dy="0.35em", text_anchor="end"))
    for value in axes.ticks(frame.low_x, frame.high_x, whole=True):
        parts.append(element("text", numbers.count(value), class_="axis", x=_at(frame.x(value)), y=HEIGHT - 10, text_anchor="middle"))
    parts.append(element("text", "step", class_="axis", x=0, y=HEIGHT - 10))
    return element("g", *parts, aria_hidden="true")


def _stages(chart: Chart) -> Html | None:
    """Where each stage begins, its name at the top of its part."""
    if not chart.stages:
        return None
    parts, ends = [], [*(x for x, _ in chart.stages[1:]), chart.frame.high_x]
    for (start, name), end in zip(chart.stages, ends, strict=True):
        left, right = chart.frame.x(start), chart.frame.x(end)
        parts.append(element("line", class_="mark", x1=_at(left), x2=_at(left), y1=TOP - 14, y2=HEIGHT - 30))
        parts.append(element("text", fitted(name, right - left - 6, size=11.5), class_="axis", x=_at(left + 4), y=TOP - 6))
    return element("g", *parts)


def _gap(chart: Chart) -> Html | None:
    if chart.between is None:
        return None
    upper, lower = (chart.lines[i].train.smooth for i in chart.between)
    if not upper or not lower:
        return None
    return element("path", class_="gap", d=_path(chart.frame, (*upper, *reversed(lower))) + "Z")


def _line(chart: Chart, line: Line) -> Html:
    frame, parts = chart.frame, []
    if line.band:
        edges = [(x, high) for x, _, high in line.band] + [(x, low) for x, low, _ in reversed(line.band)]
        parts.append(element("path", class_="band", d=_path(frame, tuple(edges)) + "Z"))
    if line.train.is_smoothed:
        dots = "".join(f"M{_at(frame.x(x))} {_at(frame.y(y))}h0" for x, y in thin(line.train.raw))
        parts.append(element("path", class_="dots", d=dots))
    if line.train.smooth:
        parts.append(element("path", class_="thin" if line.held_out.raw else "thin alone", d=_path(frame, line.train.smooth)))
    if line.held_out.raw:
        points = thin(line.held_out.raw)
        parts.append(element("path", class_="thick", d=_path(frame, points)))
        parts += [_point(chart, line, point) for point in evenly(points, MAX_CIRCLES)]
    return element("g", *parts, class_=line.style)


def _point(chart: Chart, line: Line, point: Point) -> Html:
    spoken = element("title", f"step {numbers.count(point[0])}, held out, {line.name}: {chart.spelled(point[1])}")
    return element("circle", spoken, cx=_at(chart.frame.x(point[0])), cy=_at(chart.frame.y(point[1])), r=3.2)


def _labels(chart: Chart) -> Html:
    lines = [line for line in chart.lines if line.emphasised]
    ends = [chart.frame.y(line.emphasised[-1][1]) for line in lines]
    places = axes.spread(ends, LABEL_GAP, low=TOP, high=HEIGHT - 34)
    labels = []
    for line, y in zip(lines, places, strict=True):
        value = element("tspan", chart.spelled(line.emphasised[-1][1]), class_="value")
        x = _at(chart.frame.right + 10)
        labels.append(element("text", line.name + " ", value, class_=f"label {line.style}", x=x, y=_at(y), dy="0.35em"))
    return element("g", *labels)


def _spoken(chart: Chart, line: Line) -> str:
    if not line.emphasised:
        return ""
    (first, start), (last, end) = line.emphasised[0], line.emphasised[-1]
    kind = "held out" if line.held_out.raw else "training"
    steps = f"at step {numbers.count(first)}", f"at step {numbers.count(last)}"
    return f"{line.name}, {kind}: {chart.spelled(start)} {steps[0]}, {chart.spelled(end)} {steps[1]}."


def _caption(chart: Chart) -> list[str]:
    parts = [chart.note]
    outside = sum(chart.frame.is_outside(y) for line in chart.lines for _, y in thin(line.train.raw))
    if outside:
        parts.append(f"{numbers.count(outside)} of the dots lie outside the frame and are drawn at its edge.")
    lost = sum(line.train.num_not_finite + line.held_out.num_not_finite for line in chart.lines)
    if lost:
        parts.append(f"{numbers.count(lost)} logged values are not finite and cannot be drawn.")
    return [part for part in parts if part]


def _path(frame: Frame, points: tuple[Point, ...]) -> str:
    return "M" + "L".join(f"{_at(frame.x(x))} {_at(frame.y(y))}" for x, y in points)


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

"""Start and end side by side: shares with their intervals enter, a `<figure>` of points and whiskers leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orpo.report import facts
from orpo.report.markup import Html, element
from orpo.report.numbers import as_number, percent
from orpo.runs.summary import RunData

LEFT, RIGHT, WIDTH, ROW, TOP = 132, 24, 460, 62, 20


@dataclass(frozen=True, slots=True)
class Share:
    """A share between 0 and 1 with its interval, where it has one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity at the start and at the end of training."""

    name: str
    start: Share | None
    end: Share | None


def figure(run: RunData) -> Html | None:
    """Held-out accuracy and, in the built-in world, the oracle's scores, from start to end; None if there is nothing to show."""
    found = [comparison for comparison in _comparisons(run) if comparison.start or comparison.end]
    if not found:
        return None
    height = TOP + ROW * len(found) + 26
    grid = [_gridline(value / 4, height) for value in range(5)]
    rows = [part for i, comparison in enumerate(found) for part in _row(comparison, TOP + ROW * i)]
    title = element("title", "Start and end of training", id="start-end-title")
    said = element("desc", " ".join(_spoken(comparison) for comparison in found), id="start-end-desc")
    labels = "start-end-title start-end-desc"
    drawing = element("svg", title, said, *grid, *rows, class_="chart", viewBox=f"0 0 {WIDTH} {height}", role="img", aria_labelledby=labels)
    return element("figure", element("h3", "Start and end"), drawing, element("figcaption", _note(run, found)), id="start-end")


def _comparisons(run: RunData) -> list[Comparison]:
    start, end = facts.held_out(run)
    before, after = facts.oracle(run)
    held_out = [Share(m.accuracy, m.low, m.high) if m is not None and m.accuracy is not None else None for m in (start, end)]
    oracle = [Comparison(name, _share(before, key), _share(after, key)) for key, name in _ORACLE.items()]
    return [Comparison("pairs told apart", *held_out), *oracle]


_ORACLE = {"score": "oracle score", "correct": "correct", "manner": "kind and direct"}


def _share(values: Mapping[str, object], key: str) -> Share | None:
    value = as_number(values.get(key))
    if value is None or not 0 <= value <= 1:
        return None
    has_interval = key == "score"
    return Share(value, as_number(values.get("low")) if has_interval else None, as_number(values.get("high")) if has_interval else None)


def _gridline(value: float, height: int) -> Html:
    x = _x(value)
    line = element("line", class_="grid", x1=x, x2=x, y1=TOP - 8, y2=height - 24)
    return element("g", line, element("text", percent(value), class_="axis", x=x, y=height - 8, text_anchor="middle"), aria_hidden="true")


def _row(comparison: Comparison, top: int) -> list[Html]:
    label = element("text", comparison.name, class_="label row", x=LEFT - 14, y=top + ROW / 2 - 5, dy="0.35em", text_anchor="end")
    marks = [
        _mark(share, top + place, kind) for share, place, kind in ((comparison.start, 12, "start"), (comparison.end, 38, "end")) if share
    ]
    return [label, *marks]


def _mark(share: Share, y: int, kind: str) -> Html:
    parts = []
    if share.low is not None and share.high is not None:
        parts.append(
            element(
                "path", class_="whisker", d=f"M{_x(share.low)} {y}H{_x(share.high)}M{_x(share.low)} {y - 4}v8M{_x(share.high)} {y - 4}v8"
            )
        )
    parts.append(element("circle", class_="dot", cx=_x(share.value), cy=y, r=5))
    # Beside the whisker, on the side where there is room.
    edge, flip = (share.high or share.value, False) if share.value < 0.62 else (share.low if share.low is not None else share.value, True)
    at = {"x": _x(edge) + (-10 if flip else 10), "text_anchor": "end" if flip else "start"}
    parts.append(
        element("text", f"{kind} ", element("tspan", percent(share.value), class_="value"), class_="label", y=y, dy="0.35em", **at)
    )
    return element("g", *parts, class_=kind)


def _note(run: RunData, found: list[Comparison]) -> str:
    start, end = facts.held_out(run)
    moments = " and ".join(moment.when for moment in (start, end) if moment)
    parts = [f"Held-out pairs {moments}."] if moments else []
    if any(share and share.low is not None for comparison in found for share in (comparison.start, comparison.end)):
        parts.append("Whiskers: 95\u202f% intervals (Wilson, for pairs told apart).")
    num = as_number(facts.oracle(run)[1].get("num"))
    if num is not None:
        parts.append(
            f"The built-in world's oracle scored {num:.0f} generated replies; its score is the mean of correct and of kind and direct."
        )
    return " ".join(parts)


def _spoken(comparison: Comparison) -> str:
    said = [f"{kind} {percent(share.value)}" for kind, share in (("start", comparison.start), ("end", comparison.end)) if share]
    return f"{comparison.name}: {', '.join(said)}."


def _x(value: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * value, 1)

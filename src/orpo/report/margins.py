"""The margins of the held-out pairs, first against last: a run enters, a histogram as a `<figure>` leaves."""

from __future__ import annotations

from collections.abc import Sequence

from orpo.report import axes
from orpo.report.axes import HEIGHT, LEFT, TOP, WIDTH, Across
from orpo.report.markup import Html, element
from orpo.report.numbers import count, nats, percent
from orpo.report.pairs import held_out_pairs
from orpo.runs.summary import RunData

NUM_BINS = 24
FEWEST = 10
RIGHT, BASE = WIDTH - 18, HEIGHT - 46
HIGHEST = TOP + 40
"""Where the highest bar ends: the legend stands above."""
NAMES = {"start": "at the start", "end": "at the end"}


def figure(run: RunData) -> Html | None:
    """The histogram of chosen minus rejected, one outline for the start and one filled for the end; None for fewer than FEWEST pairs."""
    pairs = held_out_pairs(run)
    measured = {"start": [p.start for p in pairs if p.start is not None], "end": [p.end for p in pairs if p.end is not None]}
    shown = {name: margins for name, margins in measured.items() if len(margins) >= FEWEST}
    if not shown:
        return None
    low, high = _range([margin for margins in shown.values() for margin in margins])
    bins = {name: _counted(margins, low, high) for name, margins in shown.items()}
    most = max(max(counts) for counts in bins.values())
    scale = Across(low, high, LEFT, RIGHT)
    outlines = [_outline(name, bins[name], most, scale) for name in ("end", "start") if name in bins]
    title = element("title", "Margins of the held-out pairs", id="margins-title")
    said = element("desc", " ".join(_spoken(name, margins) for name, margins in shown.items()), id="margins-desc")
    drawing = element(
        "svg",
        title,
        said,
        _grid(scale, most),
        *outlines,
        _legend(shown),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby="margins-title margins-desc",
    )
    caption = element("figcaption", _note(shown, low, high))
    return element("figure", element("h3", "Margins, first against last"), drawing, caption, id="margins")


def _range(margins: Sequence[float]) -> tuple[float, float]:
    """The middle 98 % of `margins`, 0 and a little room."""
    ordered = sorted(margins)
    cut = len(ordered) // 100
    low, high = min(ordered[cut], 0.0), max(ordered[-1 - cut], 0.0)
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


def _counted(margins: Sequence[float], low: float, high: float) -> list[int]:
    """How many of `margins` lie in each bin; those beyond the range are in the outermost ones."""
    counts = [0] * NUM_BINS
    for margin in margins:
        place = int((margin - low) / (high - low) * NUM_BINS)
        counts[min(max(place, 0), NUM_BINS - 1)] += 1
    return counts


def _outline(name: str, counts: Sequence[int], most: int, scale: Across) -> Html:
    """The steps of one histogram, closed along the base line."""
    width = (scale.right - scale.left) / NUM_BINS
    steps = "".join(f"V{_y(num, most)}H{scale.left + width * (i + 1):.1f}" for i, num in enumerate(counts))
    path = f"M{scale.left:.1f} {BASE}{steps}V{BASE}"
    filled = element("path", class_="filled", d=path) if name == "end" else None
    return element("g", filled, element("path", class_="steps", d=path), class_=name)


def _grid(scale: Across, most: int) -> Html:
    parts = [element("text", "pairs", class_="axis", x=0, y=11), element("text", "nats per token", class_="axis", x=0, y=HEIGHT - 10)]
    for value in axes.ticks(0.0, float(most), whole=True):
        y = _y(value, most)
        parts.append(element("line", class_="grid", x1=LEFT, x2=RIGHT, y1=y, y2=y))
        parts.append(element("text", count(value), class_="axis", x=LEFT - 7, y=y, dy="0.35em", text_anchor="end"))
    values = axes.ticks(scale.low, scale.high)
    for value, label in zip(values, axes.tick_labels(values), strict=True):
        x = round(scale.x(value), 1)
        parts.append(element("text", label, class_="axis", x=x, y=BASE + 16, text_anchor="middle"))
    zero = round(scale.x(0.0), 1)
    parts.append(element("line", class_="mark", x1=zero, x2=zero, y1=HIGHEST - 8, y2=BASE))
    return element("g", *parts, aria_hidden="true")


def _legend(shown: dict[str, list[float]]) -> Html:
    """Which outline is which, and the share of its pairs above 0."""
    labels = []
    for i, (name, margins) in enumerate(shown.items()):
        above = element("tspan", percent(_above(margins)), class_="value")
        text = element("text", f"{NAMES[name]}: ", above, " above 0", class_="label", x=LEFT, y=TOP + 4 + 18 * i)
        labels.append(element("g", text, class_=name))
    return element("g", *labels)


def _above(margins: Sequence[float]) -> float:
    return sum(margin > 0 for margin in margins) / len(margins)


def _spoken(name: str, margins: Sequence[float]) -> str:
    middle = sorted(margins)[len(margins) // 2]
    return f"{NAMES[name].capitalize()}: {percent(_above(margins))} of {count(len(margins))} pairs above 0, median {nats(middle)}."


def _note(shown: dict[str, list[float]], low: float, high: float) -> str:
    outside = sum(not low <= margin <= high for margins in shown.values() for margin in margins)
    said = "Mean log p of chosen minus that of rejected, pair by pair, held out. Grey outline: before training. Filled: last measurement."
    many = "1 margin lies" if outside == 1 else f"{count(outside)} margins lie"
    return said + (f" {many} beyond the drawing, counted in its outermost bars." if outside else "")


def _y(num: float, most: int) -> float:
    return round(BASE - (BASE - HIGHEST) * num / most, 1)

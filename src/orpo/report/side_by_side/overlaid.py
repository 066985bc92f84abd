"""Held-out curves of several runs on one drawing: named runs enter, charts leave, one line a run."""

from __future__ import annotations

from collections.abc import Sequence

from orpo.report import facts, numbers
from orpo.report.chart import SHARES, Chart, Line, figure
from orpo.report.escape import clipped
from orpo.report.labels import fitted_names
from orpo.report.markup import Html, element, join
from orpo.report.series import Curve, curve
from orpo.report.side_by_side.runs import NamedRun
from orpo.report.whole_page import note

PER_TOKEN = "nats per token"
LABEL, MARGIN = 104, 160
CURVES: tuple[tuple[str, str, str, str], ...] = (
    ("logps/chosen", "Mean log p of the chosen", PER_TOKEN, "Up is likelier."),
    ("logps/rejected", "Mean log p of the rejected", PER_TOKEN, "Up is likelier; a preference term holds it back."),
    (
        "rewards/accuracies",
        "Pairs told apart",
        "",
        "Share of held-out pairs whose chosen answer the model prefers; 50\u202f% is a coin toss.",
    ),
    ("nll_loss", "NLL of the chosen", PER_TOKEN, "Down is better."),
)
"""Metric key, title, unit, and how to read it. Losses of different objectives are different quantities, so none is drawn."""


def curves_section(runs: Sequence[NamedRun]) -> Html:
    """The charts for which any run has held-out points, and which runs have none."""
    charts = [made for key, title, unit, said in CURVES if (made := _chart(runs, key, title, unit, said))]
    without = [run.name for run in runs if not any(_held_out(run, key).raw for key, *_ in CURVES)]
    missing = note(f"Without held-out points: {', '.join(clipped(name, 60) for name in without)}.") if without else None
    if not charts:
        return note("No run has held-out points.")
    said = "Held-out pairs, as logged, one line a run, with its name and last value at the end of the drawing."
    return join([note(said), missing, element("div", *(figure(chart) for chart in charts), class_="figures")])


def _chart(runs: Sequence[NamedRun], key: str, title: str, unit: str, said: str) -> Chart | None:
    names = fitted_names([run.name for run in runs], LABEL)
    lines = tuple(Line(name, run.style, held_out=_held_out(run, key)) for name, run in zip(names, runs, strict=True))
    drawn = tuple(line for line in lines if line.held_out.raw)
    if not drawn:
        return None
    id_ = key.replace("/", "-").replace("_", "-")
    if key == "rewards/accuracies":
        return Chart(id_, title, (key,), unit, drawn, said, numbers.percent, SHARES, (0.5,), margin=MARGIN)
    return Chart(id_, title, (key,), unit, drawn, said, margin=MARGIN)


def _held_out(run: NamedRun, key: str) -> Curve:
    points = curve(facts.rows(run.data, "eval"), key)
    return Curve(points.raw, points.raw, 1, points.num_not_finite)

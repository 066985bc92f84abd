"""Held-out log p over the steps, one chart a pipeline on the same scales: a comparison enters, small multiples and their numbers leave."""

from __future__ import annotations

from collections.abc import Iterator

from orpo.report import axes, chart
from orpo.report.chart import Chart, Line
from orpo.report.comparison.reading import Comparison, Pipeline
from orpo.report.escape import clipped
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import as_number, count, datum, nats
from orpo.report.series import Curve, Point, Row, curve, evenly
from orpo.report.tables import table
from orpo.report.whole_page import name_of, note

KEYS = ("logps/chosen", "logps/rejected")
COLUMNS = (
    ("logps/chosen", "log p chosen"),
    ("logps/rejected", "log p rejected"),
    ("nll_loss", "NLL"),
    ("rewards/accuracies", "told apart"),
)
MAX_ROWS = 20
NOTE = (
    "Mean log p of an answer's tokens on held-out pairs, nats per token, mean over seeds; all charts have the same scales. "
    "Dotted lines: where a stage begins. Likelihood training alone lifts both lines; a preference term holds the rejected answer back."
)


def curves_section(comparison: Comparison) -> Html | None:
    """The small multiples; None where no pipeline logged held-out log-probs."""
    drawn = [(i, pipeline, lines) for i, pipeline in enumerate(comparison.pipelines) if (lines := _lines(pipeline))]
    if not drawn:
        return None
    points = [point for _, _, lines in drawn for line in lines for point in line.held_out.raw]
    limits = axes.value_range([y for _, y in points], [])
    steps = (min(x for x, _ in points), max(x for x, _ in points))
    figures = [chart.figure(_chart(i, pipeline, lines, limits, steps)) for i, pipeline, lines in drawn]
    without = [pipeline for pipeline in comparison.pipelines if not _lines(pipeline)]
    missing = note(f"No held-out curve: {', '.join(clipped(pipeline.name, 60) for pipeline in without)}.") if without else None
    return join([note(NOTE), missing, element("div", *figures, class_="figures multiples"), _numbers(comparison)])


def _chart(i: int, pipeline: Pipeline, lines: tuple[Line, ...], limits: tuple[float, float], steps: tuple[float, float]) -> Chart:
    name, starts = clipped(pipeline.name, 60), _starts(pipeline)
    stages = tuple((start, stage.objective) for start, stage in zip(starts, pipeline.stages, strict=True) if start <= steps[1])
    stages = stages if len(pipeline.stages) > 1 else ()
    return Chart(f"curve-{i}", name, (), "", lines, limits=limits, steps=steps, stages=stages)


def _lines(pipeline: Pipeline) -> tuple[Line, ...]:
    """Chosen and rejected over all stages, as far as they are defined."""
    lines = (Line(key.partition("/")[2], key.partition("/")[2], held_out=_over_all_stages(pipeline, key)) for key in KEYS)
    return tuple(line for line in lines if line.held_out.raw)


def _over_all_stages(pipeline: Pipeline, key: str) -> Curve:
    parts = [curve(stage.curve, key).raw for stage in pipeline.stages]
    points: tuple[Point, ...] = tuple((start + x, y) for start, part in zip(_starts(pipeline), parts, strict=True) for x, y in part)
    return Curve(points, points, 1)


def _starts(pipeline: Pipeline) -> list[float]:
    """The step of the whole pipeline at which each stage begins: its own steps, or the last one that was logged, come before the next."""
    starts, reached = [], 0.0
    for stage in pipeline.stages:
        starts.append(reached)
        logged = [step for row in stage.curve if (step := as_number(row.get("step"))) is not None]
        reached += stage.num_steps if stage.num_steps is not None else max(logged, default=0.0)
    return starts


def _numbers(comparison: Comparison) -> Html:
    rows = [row for pipeline in comparison.pipelines for row in _table_rows(pipeline)]
    heads = ("pipeline", "stage", "step", *(head for _, head in COLUMNS))
    scroll = table(heads, rows, name="The numbers behind the curves", class_="scroll figures-table")
    summary = f"The numbers behind the curves (at most {MAX_ROWS} of each stage, evenly spaced)"
    return element("details", element("summary", summary), scroll, class_="numbers")


def _table_rows(pipeline: Pipeline) -> Iterator[list[Child]]:
    for i, stage in enumerate(pipeline.stages, start=1):
        for row in evenly(stage.curve, MAX_ROWS):
            yield [name_of(pipeline.name), f"{i} {clipped(stage.objective, 40)}", *_cells(row)]


def _cells(row: Row) -> list[Child]:
    step, values = as_number(row.get("step")), [as_number(row.get(key)) for key, _ in COLUMNS]
    return [datum(step, count(step or 0)), *(datum(value, "" if value is None else nats(value)) for value in values)]

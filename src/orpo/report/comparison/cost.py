"""What each pipeline took, stage by stage, and what its tuning took: a comparison enters, two tables leave."""

from __future__ import annotations

from collections.abc import Callable

from orpo.report.comparison.reading import Comparison, Pipeline, Values
from orpo.report.escape import clipped
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import THIN_SPACE, as_number, count, datum, duration
from orpo.report.tables import table
from orpo.report.whole_page import name_of, note


def _gib(value: float) -> str:
    return f"{value:.2f}"


def _time(value: float) -> str:
    """Tenths of a second below a minute, also where they are zero: the times of a column are compared."""
    return f"{value:.1f}{THIN_SPACE}s" if value < 60 else duration(value)


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("steps", "steps", count),
    ("pairs", "pairs", count),
    ("policy_forwards", "forwards", count),
    ("policy_backwards", "backwards", count),
    ("reference_forwards", "reference forwards", count),
    ("tokens", "tokens", count),
    ("reference_tokens", "reference tokens", count),
    ("models_in_memory", "models in memory", count),
    ("peak_memory_gib", "peak memory, GiB", _gib),
    ("seconds", "time", _time),
)
"""Key of compare.json, name for people, spelling: in the order of the table."""

READING = (
    "Means over seeds; a stage that pipelines share is counted in each of them. A forward or a backward is one pass over the data of one "
    "step. Tokens: as computed, the prompt of a pair once. Models in memory and peak memory of a pipeline: the most of any stage; all else "
    "is the sum."
)


def cost_section(comparison: Comparison) -> Html | None:
    """Each pipeline's total and its stages, then the tuning; None before anything was measured."""
    costed = [pipeline for pipeline in comparison.pipelines if any(as_number(value) is not None for value in pipeline.total.values())]
    if not costed:
        return None
    columns = [column for column in COLUMNS if any(as_number(pipeline.total.get(column[0])) is not None for pipeline in costed)]
    rows = [row for pipeline in costed for row in _rows(pipeline, columns)]
    heads = ["pipeline and its stages", *(head for _, head, _ in columns)]
    return join([note(READING), table(heads, rows, name="Cost by stage", class_="scroll figures-table cost"), _tuning(comparison)])


def _rows(pipeline: Pipeline, columns: list[tuple[str, str, Callable[[float], str]]]) -> list[list[Child]]:
    name = element("strong", name_of(pipeline.name))
    rows = [[name, *_cells(pipeline.total, columns)]]
    if len(pipeline.stages) > 1:
        for i, stage in enumerate(pipeline.stages, start=1):
            label = element("span", f"{i} {clipped(stage.objective, 40)}", class_="stage")
            rows.append([label, *_cells(stage.cost, columns)])
    return rows


def _cells(cost: Values, columns: list[tuple[str, str, Callable[[float], str]]]) -> list[Child]:
    return [_cell(as_number(cost.get(key)), spelled) for key, _, spelled in columns]


def _cell(value: float | None, spelled: Callable[[float], str]) -> Html:
    return datum(value, "" if value is None else spelled(value))


def _tuning(comparison: Comparison) -> Html | None:
    tuned = [pipeline for pipeline in comparison.pipelines if as_number(pipeline.tuning.get("trials"))]
    if not tuned:
        return None
    kinds: tuple[tuple[str, Callable[[float], str]], ...] = (("trials", count), ("tokens", count), ("seconds", _time))
    rows = [
        [name_of(pipeline.name), *(_cell(as_number(pipeline.tuning.get(key)), spelled) for key, spelled in kinds)] for pipeline in tuned
    ]
    said = table(("pipeline", "trials", "tokens", "time"), rows, name="Cost of tuning", class_="scroll figures-table narrow")
    return join([element("h3", "Tuning, before that"), said])

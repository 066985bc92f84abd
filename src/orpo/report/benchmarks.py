"""Point 10 of the report: a run enters, what it scored on public benchmarks leaves."""

from __future__ import annotations

from orpo.report.markup import Html
from orpo.report.whole_page import note
from orpo.runs.summary import RunData


def benchmarks_section(run: RunData) -> Html:  # noqa: ARG001 - what it reads of a run comes with `orpo eval --tasks`
    """That no benchmark was run."""
    return note("Not measured: no benchmark was run with this model.")

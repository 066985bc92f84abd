"""Point 9 of the report: a run enters, who wins against whom leaves."""

from __future__ import annotations

from orpo.report.markup import Html
from orpo.report.whole_page import note
from orpo.runs.summary import RunData


def win_rate_section(run: RunData) -> Html:  # noqa: ARG001 - what it reads of a run comes with `orpo eval --judge`
    """That no win rate was measured."""
    return note("Not measured: no judge compared replies of this run with others.")

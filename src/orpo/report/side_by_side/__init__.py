"""Several runs on one page: run directories enter, one HTML page leaves, what differs first. No script, no request."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from orpo.report import facts
from orpo.report.escape import clipped
from orpo.report.markup import Html, element, join
from orpo.report.numbers import count, short
from orpo.report.side_by_side.differences import differences_section
from orpo.report.side_by_side.figures import figures_section
from orpo.report.side_by_side.overlaid import curves_section
from orpo.report.side_by_side.replies import replies_section
from orpo.report.side_by_side.runs import NamedRun, read_runs
from orpo.report.tables import MAX_TEXT
from orpo.report.whole_page import note, whole_page

CSS = ("page.css", "comparison.css")


def render_side_by_side(folders: Sequence[Path]) -> str:
    """The page for the runs in `folders`. UserError for what is no run, StorageError when a file is damaged."""
    runs = read_runs(folders)
    title = ", ".join(clipped(run.name, 40) for run in runs)
    sections = [
        ("differences", "What differs", differences_section(runs)),
        ("curves", "Curves", curves_section(runs)),
        ("figures", "Figures", figures_section(runs)),
        ("replies", "Replies", replies_section(runs)),
        ("reproduce", "How to reproduce them", _reproduce(runs)),
    ]
    return whole_page(_header(runs), sections, title=title, source="the files of the run directories", css=CSS)


def _header(runs: Sequence[NamedRun]) -> Html:
    items = [element("li", element("strong", clipped(run.name, 60)), f" \u2013 {_in_short(run)}") for run in runs]
    return element(
        "header",
        element("p", "orpo runs, side by side", class_="kind"),
        element("h1", f"{count(len(runs))} runs"),
        element("ol", *items, class_="runs"),
    )


def _in_short(run: NamedRun) -> str:
    objective, weight = facts.text(run.data, "objective"), facts.beta(run.data)
    parts = [
        clipped(objective.upper(), 40) + (f", \u03b2 {short(weight)}" if weight is not None and objective != "sft" else "")
        if objective
        else "",
        clipped(facts.model_name(run.data) or "", 80),
        f"{count(facts.reached(run.data))} steps",
    ]
    return " \u00b7 ".join(part for part in parts if part)


def _reproduce(runs: Sequence[NamedRun]) -> Html:
    parts: list[Html] = []
    for run in runs:
        command = run.data.summary.command if run.data.summary else ()
        line = element("pre", element("code", clipped(shlex.join(command), MAX_TEXT // 4)), tabindex=0) if command else None
        parts += [element("h3", clipped(run.name, 60)), line or note("Its command was not recorded.")]
    return join(parts)

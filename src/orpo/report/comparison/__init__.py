"""The page of a comparison: a folder with compare.json enters, comparison.html leaves. It reads that one file and nothing else."""

from __future__ import annotations

from pathlib import Path

from orpo.report.comparison.cost import cost_section
from orpo.report.comparison.curves import curves_section
from orpo.report.comparison.reading import Comparison, read_comparison
from orpo.report.comparison.replies import replies_section
from orpo.report.comparison.reproduce import failures_section, reproduce_section
from orpo.report.comparison.scatter import scatter_section
from orpo.report.comparison.scores import scores_section, table_section
from orpo.report.comparison.tuning import equal_section
from orpo.report.comparison.verdict import verdict
from orpo.report.escape import clipped
from orpo.report.facts import mapping
from orpo.report.markup import Html, element
from orpo.report.numbers import as_number, count, duration, moment, short
from orpo.report.whole_page import Section, note, sentences_list, whole_page
from orpo.runs import atomic
from orpo.runs.names import COMPARISON, COMPARISON_PAGE

NOT_YET = "Nothing was measured yet."
CSS = ("page.css", "comparison.css")


def render_comparison(folder: Path) -> str:
    """The page for `folder`. The same compare.json gives the same page. UserError when there is none, StorageError when it is damaged."""
    return page(read_comparison(folder))


def write_comparison(folder: Path) -> Path:
    """The path of comparison.html, written whole or not at all."""
    path = folder / COMPARISON_PAGE
    atomic.write_text_atomic(path, render_comparison(folder))
    return path


def page(comparison: Comparison) -> str:
    """The page for a comparison that was read already."""
    return whole_page(_header(comparison), _sections(comparison), title=comparison.name, source=COMPARISON, css=CSS)


def _sections(comparison: Comparison) -> list[Section]:
    return [
        ("verdict", "Verdict", sentences_list(verdict(comparison))),
        ("scores", "Scores", scores_section(comparison)),
        ("against-cost", "Score against cost", scatter_section(comparison)),
        ("table", "All scores", table_section(comparison)),
        ("cost", "Cost by stage", cost_section(comparison) or note(NOT_YET)),
        ("curves", "Log p over the steps", curves_section(comparison) or note("No held-out curve was logged.")),
        ("equal", "What was equal, and tuning", equal_section(comparison)),
        ("replies", "Replies", replies_section(comparison)),
        ("failures", "Failures", failures_section(comparison)),
        ("reproduce", "How to reproduce it", reproduce_section(comparison)),
    ]


def _header(comparison: Comparison) -> Html:
    equal, budget = comparison.equal, mapping(comparison.equal.get("budget"))
    size, amount, held_out = (as_number(value) for value in (equal.get("parameters"), budget.get("amount"), equal.get("held_out_pairs")))
    model = "" if equal.get("model") is None else str(equal["model"])
    parts = [
        model + (f", {short(size)} parameters" if size and model else ""),
        _number(len(comparison.pipelines), "pipeline"),
        _number(comparison.num_seeds, "seed") if comparison.num_seeds else "",
        f"{count(amount)} {budget.get('kind', '')} each" if amount is not None else "",
        f"{count(held_out)} held-out pairs" if held_out is not None else "",
    ]
    line = element("p", *(element("span", clipped(part, 160)) for part in parts if part), class_="facts")
    return element(
        "header", element("p", "orpo comparison", class_="kind"), element("h1", clipped(comparison.name, 120)), line, _status(comparison)
    )


def _number(num: int, what: str) -> str:
    return f"{count(num)} {what}" if num == 1 else f"{count(num)} {what}s"


def _status(comparison: Comparison) -> Html:
    took = f", after {duration(comparison.seconds)}" if comparison.seconds is not None else ""
    if comparison.status == "done":
        ended = clipped(moment(comparison.finished), 80) if comparison.finished else ""
        return element("p", f"Done {ended}{took}.".replace(" ,", ","), class_="status")
    words = {"failed": "This comparison failed", "running": "This comparison is still going"}
    said = words.get(comparison.status, f"This comparison stands as {clipped(comparison.status, 40)}")
    return element("div", element("p", f"{said}{took}. What follows is what it had measured by then."), class_="status warn")

"""The report of a run: a run directory enters, one self-contained HTML page leaves. No script, no request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from orpo.report import chart, curves, facts, margins, startend, tables
from orpo.report.alarms import Alarm, alarms
from orpo.report.beside import sft_beside
from orpo.report.breakdown import breakdown_section
from orpo.report.escape import clipped
from orpo.report.evaluations import benchmarks_section, win_rate_section
from orpo.report.markup import Html, element, join
from orpo.report.numbers import as_number, count, datum, duration, moment, nats, percent, short
from orpo.report.samples import samples_section
from orpo.report.verdict import verdict
from orpo.report.whole_page import Section, note, sentences_list, whole_page
from orpo.runs import atomic
from orpo.runs.names import REPORT
from orpo.runs.summary import RunData, read_run

NO_HELD_OUT = "No pairs were held out, or none were measured: thick lines, intervals and a start-to-end comparison are absent, not zero."


def render_report(run_dir: Path) -> str:
    """The page for `run_dir`. The same files, and the same SFT run beside it, give the same page.

    UserError when it is no run, StorageError when a file is damaged.
    """
    return page(read_run(run_dir))


def write_report(run_dir: Path) -> Path:
    """The path of report.html, written whole or not at all."""
    path = run_dir / REPORT
    atomic.write_text_atomic(path, render_report(run_dir))
    return path


def page(run: RunData) -> str:
    """The page for a run that was read already."""
    return whole_page(_header(run), _sections(run, alarms(run)), title=run.name, source="the files of the run directory")


def _header(run: RunData) -> Html:
    parts: list[str] = []
    objective, weight = facts.text(run, "objective"), facts.beta(run)
    if objective:
        parts.append(objective.upper() + (f", \u03b2 {short(weight)}" if weight is not None and objective != "sft" else ""))
    size = facts.number(run, "parameters")
    parts.append((facts.model_name(run) or "") + (f", {short(size)} parameters" if size else ""))
    parts.append(f"{count(facts.reached(run))} steps")
    report = facts.mapping(run.data_report)
    for key, name in (("trained_on", "pairs") if "trained_on" in report else ("pairs", "pairs"), ("held_out", "held out")):
        num = as_number(report.get(key))
        parts += [f"{count(num)} {name}"] if num else []
    parts += [facts.text(run, "dtype") or ""]
    facts_line = element("p", *(element("span", clipped(part, 160)) for part in parts if part), class_="facts")
    return element(
        "header", element("p", "orpo run report", class_="kind"), element("h1", clipped(run.name, 120)), facts_line, _status(run)
    )


def _status(run: RunData) -> Html | None:
    summary = run.summary
    if summary is None:
        return element("p", "This run has no summary.json: it is still going, or it stopped without a word.", class_="status warn")
    when = f"{moment(summary.started)} to {moment(summary.finished)}" if summary.finished else f"since {moment(summary.started)}"
    if summary.status == "done":
        return element("p", f"Done {moment(summary.finished or summary.started)}, after {duration(summary.seconds)}.", class_="status")
    words = {"failed": "This run failed", "interrupted": "This run was interrupted", "running": "This run is still going"}[summary.status]
    planned = facts.number(run, "max_steps")
    place = f" after step {count(facts.reached(run))}" + (f" of {count(planned)}" if planned else "")
    code = f", exit code {summary.exit_code}" if summary.exit_code is not None else ""
    said = element("pre", clipped(summary.error, 2000), tabindex=0) if summary.error else None
    return element(
        "div", element("p", f"{words}{place}{code} ({when}). What follows is what it had measured by then."), said, class_="status warn"
    )


def _sections(run: RunData, found: tuple[Alarm, ...]) -> list[Section]:
    return [
        ("verdict", "Verdict", join([sentences_list(verdict(run, found)), _figures(run)])),
        ("curves", "Curves", _curves(run)),
        ("pairs", "Whom it tells apart", breakdown_section(run)),
        ("alarms", "Alarms", _alarms(found)),
        ("samples", "Samples", samples_section(run.samples) if run.samples else note("No samples were written.")),
        ("win-rate", "Win rate", win_rate_section(run)),
        ("benchmarks", "Benchmarks", benchmarks_section(run)),
        ("data", "Data", tables.data_section(run.data_report) if run.data_report else note("There is no data_report.json.")),
        ("cost", "Cost", tables.cost_section(run)),
        ("config", "Settings", tables.config_section(run.config_text) if run.config_text else note("There is no config.resolved.yaml.")),
        ("reproduce", "How to reproduce it", tables.reproduce_section(run)),
    ]


def _figures(run: RunData) -> Html | None:
    """The strip of figures a reader looks for first, each with its start."""
    moments, scores = facts.held_out(run), [as_number(part.get("score")) for part in facts.oracle(run)]
    tiles = [
        _tile("held-out pairs told apart", percent, [moment.accuracy if moment else None for moment in moments]),
        _tile("held-out NLL, nats per token", nats, [moment.nll if moment else None for moment in moments]),
        _tile("oracle score", percent, scores),
        _tile("held-out log p, chosen minus rejected", nats, [moment.margin if moment else None for moment in moments]),
    ]
    shown = [tile for tile in tiles if tile is not None]
    return element("dl", *shown, class_="tiles") if shown else None


def _tile(name: str, spelled: Callable[[float], str], start_and_end: Sequence[float | None]) -> Html | None:
    start, end = start_and_end
    if end is None:
        return None
    was = ["was ", datum(start, spelled(start))] if start is not None else ["start not measured"]
    value = element("dd", datum(end, spelled(end), class_="big"), element("small", *was))
    return element("div", element("dt", name), value)


def _curves(run: RunData) -> Html:
    made = curves.charts(run, sft=sft_beside(run))
    drawn = [chart.figure(one) for one in made]
    more = [one for one in (startend.figure(run), margins.figure(run)) if one is not None]
    figures = [*drawn[:3], *more, *drawn[3:]]
    notes = [chart.reading_note(made) if made else "No step was logged."] + ([] if any(facts.held_out(run)) else [NO_HELD_OUT])
    return join([*(note(text) for text in notes), element("div", *figures, class_="figures"), curves.numbers_table(run)])


def _alarms(found: tuple[Alarm, ...]) -> Html:
    rows = []
    for alarm in found:
        state = element("strong", alarm.state, class_=alarm.state.replace(" ", "-"))
        rows.append((clipped(alarm.name, 100), state, clipped(alarm.found, 200), clipped(alarm.rule, 200)))
    return tables.table(("alarm", "state", "found", "fires when"), rows, name="Alarms")

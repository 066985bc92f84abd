"""What failed, and how to run it again: a comparison enters, tables and lists leave."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from orpo.report.comparison.reading import Comparison, Failure
from orpo.report.escape import clipped
from orpo.report.facts import sequence
from orpo.report.markup import Child, Html, element, join
from orpo.report.numbers import count, datum, duration, moment
from orpo.report.tables import json_cell, pairs_list, table
from orpo.report.whole_page import name_of, note

MAX_FAILURES = 30
MAX_COMMAND = 4000
MAX_ENTRIES = 40


def failures_section(comparison: Comparison) -> Html:
    """Each stage that did not come to its end, with its message."""
    failures = comparison.failures
    if not failures:
        return note("No stage failed.")
    rows = [_row(failure) for failure in failures[:MAX_FAILURES]]
    rest = note(f"{MAX_FAILURES} of {len(failures)} failures are shown.") if len(failures) > MAX_FAILURES else None
    shared = note("A training that pipelines share is listed under each of them.")
    return join([shared, table(("pipeline", "stage", "seed", "message"), rows, name="Failures"), rest])


def _row(failure: Failure) -> list[Child]:
    # Stages are counted from 1 on this page, as people count.
    stage = None if failure.stage is None else failure.stage + 1
    message = element("code", clipped(failure.error, 400), class_="message")
    return [name_of(failure.pipeline), _number(stage), _number(failure.seed), message]


def _number(value: float | None) -> Html:
    return datum(value, "" if value is None else count(value))


def reproduce_section(comparison: Comparison) -> Html:
    """The command, seeds and times, and the machine and versions it ran on."""
    parts: list[Html] = []
    if comparison.command:
        parts.append(element("pre", element("code", clipped(shlex.join(comparison.command), MAX_COMMAND)), tabindex=0))
    parts.append(pairs_list(_times(comparison)))
    entries = [(clipped(name, 80), json_cell(value)) for name, value in _flat(comparison.environment)]
    if entries:
        parts += [element("h3", "Machine and versions"), pairs_list(entries[:MAX_ENTRIES])]
    return join(parts)


def _times(comparison: Comparison) -> list[tuple[Child, Child]]:
    entries: list[tuple[Child, Child]] = [("seeds", json_cell(list(sequence(comparison.equal.get("seeds")))))]
    entries += [("seed of tuning", json_cell(comparison.tuned_by["seed"]))] if "seed" in comparison.tuned_by else []
    for name, when in (("started", comparison.started), ("finished", comparison.finished)):
        entries += [(name, clipped(moment(when), 80))] if when else []
    if comparison.seconds is not None:
        entries.append(("time, all sessions", datum(comparison.seconds, duration(comparison.seconds))))
    return entries


def _flat(values: Mapping[str, object]) -> list[tuple[str, object]]:
    """Machine and versions on one level, the versions of libraries under their own names."""
    found: list[tuple[str, object]] = []
    for name, value in values.items():
        found += [(str(key), part) for key, part in value.items()] if isinstance(value, Mapping) else [(str(name).replace("_", " "), value)]
    return found

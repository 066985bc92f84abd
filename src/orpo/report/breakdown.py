"""Whom the model tells apart: held-out pairs by file and by length enter, a table with intervals leaves."""

from __future__ import annotations

from collections.abc import Sequence

from orpo.core.intervals import wilson_interval
from orpo.report.escape import clipped
from orpo.report.markup import Child, Html, join
from orpo.report.numbers import MISSING, count, datum, percent
from orpo.report.pairs import Group, HeldOutPair, by_file, by_length, by_longer_answer, held_out_pairs
from orpo.report.tables import table
from orpo.report.whole_page import note
from orpo.runs.summary import RunData

MAX_FILES = 12
RULE = (
    "A pair is told apart when its chosen answer has the higher mean log p per token (of a reward model: the higher score). In brackets "
    "the 95\u202f% Wilson interval; where two overlap, their difference may be chance. Lengths: thirds by the tokens of the longer answer."
)


def breakdown_section(run: RunData) -> Html:
    """The table, with how it was made; a note where no pair was measured by itself."""
    pairs = held_out_pairs(run)
    if not pairs:
        return note("Not measured: it takes held-out pairs (--holdout, --eval-data) and an objective on pairs.")
    files = by_file(pairs)
    rows = [_row("all held-out pairs", pairs)]
    rows += [_row(clipped(f"from {name}", 120), members) for name, members in files[:MAX_FILES] if len(files) > 1]
    rows += [_row(name, members) for name, members in (*_lengths(pairs), *by_longer_answer(pairs))]
    left = note(f"{MAX_FILES} of {count(len(files))} files are shown, the largest.") if len(files) > MAX_FILES else None
    heads = ("pairs", "how many", "told apart at the start", "at the end")
    return join([note(RULE), table(heads, rows, name="Pairs told apart by kind"), left])


def _lengths(pairs: Sequence[HeldOutPair]) -> list[Group]:
    thirds = by_length(pairs)
    return [(f"answers of {name}", members) for name, members in thirds] if len(thirds) > 1 else []


def _row(name: Child, pairs: Sequence[HeldOutPair]) -> tuple[Child, ...]:
    starts = [pair.start for pair in pairs if pair.start is not None]
    ends = [pair.end for pair in pairs if pair.end is not None]
    return name, datum(len(pairs), count(len(pairs))), _share(starts), _share(ends)


def _share(margins: Sequence[float]) -> Child:
    """The share of `margins` above 0 with its interval."""
    if not margins:
        return MISSING
    right = sum(margin > 0 for margin in margins)
    low, high = wilson_interval(right, len(margins))
    return join([datum(right / len(margins), percent(right / len(margins))), f" ({percent(low)} to {percent(high)})"])

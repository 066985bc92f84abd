"""What can only be said when all rows were seen: nothing is left, rows repeat or contradict, the longer answer wins. Warnings are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orpo.core.records import Source
from orpo.data.data_report import NUM_LISTED
from orpo.data.gathering import Gathering
from orpo.data.label_balance import label_warnings
from orpo.data.length_bias import length_sentence
from orpo.data.likeness import METHOD
from orpo.data.row import Problem
from orpo.data.traces import repeats

_TOO_LONG = {"too-long", "prompt-too-long"}


def judged(seen: Gathering, paths: Sequence[str], max_bad_rows: int) -> dict[str, Any]:
    """The figures of repeats, empty where nothing is left; what is worth a warning, or an error, is added to the tally of `seen`."""
    tally, num = seen.tally, len(seen.traces)
    if num == 0 and tally.num_errors == tally.num_bad_rows <= max_bad_rows:
        tally.add(_nothing_left(seen, paths[0]), is_row=False)
    if num == 1:
        tally.warn("one-row", 1, f"there is a single {seen.noun}")
    figures = _repeats(seen) if num else {}
    if seen.lengths.is_lopsided:
        tally.warn("length-bias", 1, length_sentence(seen.lengths.figures()))
    if seen.reads == "labelled":
        for kind, num_warned, message in label_warnings(seen.labels[True], seen.labels[False], seen.possible_pairs):
            tally.warn(kind, num_warned, message)
    return figures


def _repeats(seen: Gathering) -> dict[str, Any]:
    """How often rows repeat or contradict one another, with the warnings that follow."""
    tally, num, found = seen.tally, len(seen.traces), repeats(seen.traces, num_first=NUM_LISTED)
    other_way = "labelled the other way" if seen.reads == "labelled" else "in the opposite order"
    for kind, matches, said in (
        ("duplicates", found.duplicates, "the same prompt and answers as {}"),
        ("near-duplicates", found.near_duplicates, "nearly the same prompt and answers as {}"),
        ("opposite-order", found.opposite, f"the same prompt and answers as {{}}, {other_way}"),
    ):
        tally.warn_of_rows([Problem(kind, said.format(other), source, "warning") for source, other in matches.first], matches.num)
    if num > 1 and found.duplicates.num == num - 1:
        tally.warn("all-rows-identical", 1, f"all {num:,} {seen.noun}s are the same")
    return {
        "duplicates": found.duplicates.num,
        "near_duplicates": found.near_duplicates.num,
        "repeated_prompts": found.repeated_prompts,
        "near_repeated_prompts": found.near_repeated_prompts,
        "opposite": found.opposite.num,
        "method": METHOD,
    }


def _nothing_left(seen: Gathering, path: str) -> Problem:
    tally = seen.tally
    source = Source(path, 1)
    if tally.dropped and tally.dropped.keys() <= _TOO_LONG and not tally.num_errors:
        message = (
            f"all {tally.rows:,} rows are longer than max_length {seen.max_length:,}; the shortest has {seen.shortest_too_long:,} tokens"
        )
        return Problem("all-too-long", message, source, fix=f"raise max_length to {seen.shortest_too_long} or more")
    why = ", ".join(
        [f"{num:,} {kind}" for kind, num in tally.dropped.items()] + [f"{tally.num_errors:,} with errors"] * bool(tally.num_errors)
    )
    return Problem(
        "no-rows-left",
        f"no {seen.noun} is left of {tally.rows:,} rows{f' ({why})' if why else ''}",
        source,
        fix="see why rows were dropped",
    )

"""What can only be said when all rows were seen: nothing is left, rows repeat or contradict, the longer answer wins. Warnings are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from orpo.core.records import Source
from orpo.data.gathering import Gathering
from orpo.data.label_balance import label_warnings
from orpo.data.length_bias import length_sentence
from orpo.data.likeness import METHOD
from orpo.data.limits import IDENTICAL_AFTER_CUT
from orpo.data.row import Problem
from orpo.data.tokenize import IDENTICAL_TOKENS, JOINED_WORDS, SPECIAL_TOKEN_TEXT
from orpo.data.traces import repeats

_TOO_LONG = {"too-long", "prompt-too-long"}
_NOTE_MESSAGES = {
    SPECIAL_TOKEN_TEXT: "rows hold the text of a control token, such as </s>: it is encoded as plain text, not as the token",
    JOINED_WORDS: "rows join the last word of the prompt and the first of the answer: no space or line break stands between them",
    IDENTICAL_TOKENS: "answers are the same as a better one once the template is applied: they do not take part",
    IDENTICAL_AFTER_CUT: "answers became the same as a better one when they were cut: they do not take part",
}


def judged(seen: Gathering, paths: Sequence[str], max_bad_rows: int) -> dict[str, Any]:
    """The figures of repeats, empty where nothing is left; what is worth a warning, or an error, is added to the tally of `seen`."""
    tally, num = seen.tally, len(seen.traces)
    if num == 0 and tally.num_errors == tally.num_bad_rows <= max_bad_rows:
        tally.add(_nothing_left(seen, paths[0]), is_row=False)
    if num == 1:
        tally.warn("one-row", 1, f"there is a single {seen.noun}")
    figures = _repeats(seen) if num else {}
    for kind, message in _NOTE_MESSAGES.items():
        tally.warn(kind, tally.notes[kind], f"{tally.notes[kind]:,} {message}")
    if seen.lengths.is_lopsided:
        tally.warn("length-bias", 1, length_sentence(seen.lengths.figures()))
    if seen.reads == "labelled":
        for kind, num_warned, message in label_warnings(seen.labels[True], seen.labels[False], seen.possible_pairs):
            tally.warn(kind, num_warned, message)
    return figures


def _repeats(seen: Gathering) -> dict[str, Any]:
    """How often rows repeat or contradict one another, with the warnings that follow."""
    tally, num, found = seen.tally, len(seen.traces), repeats(seen.traces)
    tally.warn("duplicates", found.duplicates, f"{seen.noun}s stand in the data more than once")
    if num > 1 and found.duplicates == num - 1:
        tally.warn("all-rows-identical", 1, f"all {num:,} {seen.noun}s are the same")
    tally.warn("near-duplicates", found.near_duplicates, f"{seen.noun}s nearly repeat an earlier one, prompt and answers")
    opposite = "labels the same answer the other way" if seen.reads == "labelled" else "has the same answers in the opposite order"
    tally.warn("opposite-order", found.opposite, f"{seen.noun}s are contradicted: another row {opposite}")
    return {**asdict(found), "method": METHOD}


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

"""Rows that repeat, contradict one another, or are both trained on and held out: counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orpo.core.records import Message, Source
from orpo.data.example import Example
from orpo.data.traces import Matches, Overlap, Repeats, RowTraces, overlap, repeats

SOURCE = Source("a.jsonl", 1)


def traces(*rows: Example) -> RowTraces:
    found = RowTraces()
    for row in rows:
        found.append(row)
    return found


def pair(prompt: str, *answers: str, **parts: object) -> Example:
    return Example(prompt, answers, SOURCE, **parts)  # type: ignore[arg-type]


def test_repeats_and_contradictions_are_counted():
    rows = [
        pair("p", "a", "b"),
        pair("p", "a", "b"),  # a duplicate
        pair("p", "b", "a"),  # the opposite of both
        pair("p", "a", "c"),
        pair("q", "b", "a"),  # the opposite order to another prompt is none
        pair("pa", "", "b"),  # the same letters cut elsewhere
    ]
    lines = [replace(row, source=Source("a.jsonl", number)) for number, row in enumerate(rows, start=1)]
    found = repeats(traces(*lines), num_first=2)
    assert found == Repeats(
        duplicates=Matches(1, ((lines[1].source, lines[0].source),)),
        near_duplicates=Matches(0),
        repeated_prompts=3,
        near_repeated_prompts=0,
        opposite=Matches(3, ((lines[0].source, lines[2].source), (lines[1].source, lines[2].source))),
    )


def test_a_row_that_nearly_repeats_is_told_with_the_row_that_it_repeats():
    words = " ".join(map(str, range(1000, 1060)))
    rows = [pair("one", "a", "b"), pair(f"{words} one", words, "b"), pair("two", "a", "b"), pair(f"{words} two", words, "b")]
    lines = [replace(row, source=Source("a.jsonl", number)) for number, row in enumerate(rows, start=1)]
    assert repeats(traces(*lines), num_first=9).near_duplicates == Matches(1, ((lines[3].source, lines[1].source),))


@pytest.mark.parametrize(
    ("rows", "num"),
    [
        ([(True,), (False,)], 2),
        ([(True,), (True,)], 0),
        ([(True,), (False,), (False,)], 3),
    ],
)
def test_an_answer_that_is_called_both_good_and_bad_is_a_contradiction(rows, num):
    assert repeats(traces(*(pair("p", "a", labels=labels) for labels in rows)), num_first=0).opposite == Matches(num)


def test_a_labelled_pair_contradicts_its_exchange_and_a_ranking_its_reverse():
    labelled = [pair("p", *answers, labels=(True, False)) for answers in (("a", "b"), ("b", "a"))]
    assert repeats(traces(*labelled), num_first=0).opposite == Matches(2)
    ranked = [pair("p", *answers) for answers in ("abc", "cba", "bca")]
    assert repeats(traces(*ranked), num_first=0).opposite == Matches(2)


def test_messages_are_the_same_when_role_and_text_are():
    def chat(role: str) -> Example:
        return Example((Message(role, "p"),), ((Message("assistant", "a"),), (Message("assistant", "b"),)), SOURCE)

    assert repeats(traces(chat("user"), chat("user"), chat("tool")), num_first=0).duplicates == Matches(1)


def test_the_overlap_of_rows_of_one_file_is_that_of_the_rows_chosen():
    rows = traces(*(pair(f"p {number % 4}", "a", "b") for number in range(8)))
    some = np.array([0, 1]), np.array([4, 6, 7])  # p 0 and p 1 against p 0, p 2, p 3
    assert overlap(rows, rows, trained_rows=some[0], held_rows=some[1]) == Overlap(same=1, near=0, first=(SOURCE,))
    long = "a prompt with one hundred numbers, which is long enough, " + " ".join(map(str, range(1000, 1100)))
    held = traces(pair(f"{long} one", "a", "b"), pair("p 2", "a", "b"), pair("else", "a", "b"))
    assert overlap(traces(pair(f"{long} two", "c", "d"), pair("p 2", "c", "d")), held) == Overlap(same=1, near=1, first=(SOURCE, SOURCE))


def test_a_row_takes_few_bytes_of_memory():
    found = traces(*(pair(f"p {number}", "a", "b") for number in range(1000)))
    assert [len(part) / 1000 for part in (found._prompts, found._said, found._opposite)] == [8, 8, 8]
    assert sum(index.itemsize for index in (found.places._file_numbers, found.places._row_numbers)) == 12
    assert len(found.sketches.num_bins(0)) == 1000

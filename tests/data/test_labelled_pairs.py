"""Labelled answers: refused with a count where pairs are wanted, paired by prompt when asked to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest

from orpo.core.records import PreferencePair, Source
from orpo.data.formats import detect_shape, read_pairs
from orpo.data.row import Problem, Row
from orpo.data.shapes.reading import WaitingRows
from orpo.errors import ConfigError, DataError


def rows_of(*answers: tuple[str, str, Any]) -> list[Row]:
    return [
        Row({"prompt": prompt, "completion": text, "label": label}, Source("kto.jsonl", number))
        for number, (prompt, text, label) in enumerate(answers, start=1)
    ]


def paired(rows: list[Row]) -> list[PreferencePair | Problem]:
    return list(read_pairs(detect_shape(rows), lambda: rows, pair_labelled=True))


ROWS = rows_of(("p", "good 1", True), ("q", "alone", True), ("p", "good 2", True), ("p", "bad 1", False), ("r", "bad", 0), ("r", "good", 1))


def test_labelled_rows_are_refused_with_the_number_of_prompts_that_have_both_labels() -> None:
    with pytest.raises(DataError) as caught:
        list(read_pairs(detect_shape(ROWS), lambda: ROWS))
    assert "labelled data" in caught.value.problem
    assert "these can be paired because 2 of 3 prompts have both labels: pass --pair-labelled" in caught.value.fix
    assert "or train on them as they are: --objective kto or ulma" in caught.value.fix
    assert caught.value.where == "kto.jsonl:1"


def test_labelled_rows_that_share_no_prompt_are_not_told_to_be_paired() -> None:
    with pytest.raises(DataError) as caught:
        list(read_pairs(detect_shape(ROWS[:2]), lambda: ROWS[:2]))
    assert "cannot be paired: none of 2 prompts" in caught.value.fix
    assert "--pair-labelled" not in str(caught.value)


def test_the_kth_good_answer_is_paired_with_the_kth_bad_one_and_the_rest_counted() -> None:
    found = paired(ROWS)
    pairs = [item for item in found if isinstance(item, PreferencePair)]
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [("p", "good 1", "bad 1"), ("r", "good", "bad")]
    assert [str(pair.source) for pair in pairs] == ["kto.jsonl:1", "kto.jsonl:6"]
    assert [pair.metadata for pair in pairs] == [{"rejected_source": "kto.jsonl:4"}, {"rejected_source": "kto.jsonl:5"}]
    problems = [item for item in found if isinstance(item, Problem)]
    assert [(problem.kind, problem.severity, str(problem.source)) for problem in problems] == [
        ("unpaired", "dropped", "kto.jsonl:2"),
        ("unpaired", "dropped", "kto.jsonl:3"),
    ]


def test_a_row_in_error_is_told_once_and_pairs_with_nothing() -> None:
    rows = rows_of(("p", "good", True), ("p", "bad", "no"), ("p", "worse", False))
    found = paired(rows)
    assert [item.kind for item in found if isinstance(item, Problem)] == ["wrong-type"]
    assert [item.rejected for item in found if isinstance(item, PreferencePair)] == ["worse"]


def test_labels_may_be_text_as_in_csv_files() -> None:
    found = paired(rows_of(("p", "good", "True"), ("p", "bad", "false")))
    assert [(item.chosen, item.rejected) for item in found if isinstance(item, PreferencePair)] == [("good", "bad")]


def test_identical_answers_with_both_labels_are_dropped() -> None:
    found = paired(rows_of(("p", "same", True), ("p", "same", False)))
    assert [(item.kind, item.severity) for item in found if isinstance(item, Problem)] == [("identical", "dropped")]


def test_prompts_that_differ_in_their_tools_or_system_are_not_paired() -> None:
    def row(number: int, label: bool, **more: Any) -> Row:
        messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{number}"}]
        return Row({"messages": messages, "label": label, **more}, Source("kto.jsonl", number))

    rows = [row(1, True, system="s", tools=None), row(2, False, system="", tools=None), row(3, False, system="s", tools=[{"name": "add"}])]
    assert not any(isinstance(item, PreferencePair) for item in paired(rows))
    assert any(isinstance(item, PreferencePair) for item in paired([rows[0], row(4, False, system="s", tools=None)]))


def test_pairing_pairs_is_a_contradiction() -> None:
    rows = [Row({"prompt": "q", "chosen": "a", "rejected": "b"}, Source("pairs.jsonl", 1))]
    with pytest.raises(ConfigError, match="--pair-labelled: the rows are pairs already"):
        read_pairs(detect_shape(rows), lambda: rows, pair_labelled=True)


def test_a_single_labelled_row_is_an_error_that_names_the_flag() -> None:
    problem = detect_shape(ROWS).to_pairs(ROWS[0])[0]
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.severity) == ("labelled-answer", "error")
    assert "--pair-labelled" in str(problem)


def test_waiting_rows_come_back_in_any_order_also_from_the_file() -> None:
    values: list[Mapping[str, Any]] = [{"text": "ü" * 50, "day": date(2024, 1, number)} for number in (1, 2, 3)]
    with WaitingRows(max_bytes=100) as waiting:
        for number, value in enumerate(values):
            waiting.put(number, Row(value, Source("kto.jsonl", number)))
        for number in (1, 0, 2):
            expected = {**values[number], "day": f"2024-01-0{number + 1}"}
            assert waiting.take(number) == Row(expected, Source("kto.jsonl", number))

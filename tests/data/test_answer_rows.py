"""Rows of ranked lists and of labelled answers as what they hold: which answers take part, in which order, and what is told."""

from __future__ import annotations

from typing import Any

import pytest

from orpo.core.records import Message, Ranking, Source
from orpo.data.formats import SHAPES
from orpo.data.row import Problem, Row

BY_NAME = {shape.name: shape for shape in SHAPES}


def ranking(name: str, row: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[float, ...], list[str]]:
    """Completions and scores of the row read as a ranking, and the kinds of its warnings."""
    found, *warnings = BY_NAME[name].to_records(Row(row, Source("pairs.jsonl", 1)))
    assert isinstance(found, Ranking), found
    return found.completions, found.scores, [warning.kind for warning in warnings if isinstance(warning, Problem)]


def test_a_ranking_holds_all_answers_best_first_and_ranks_count_as_minus_the_rank() -> None:
    row = {"prompt": "q", "responses": ["w", "x", "y", "z"]}
    assert ranking("ranked-scores", {**row, "scores": [0.5, -2, 7, 3]}) == (("y", "z", "w", "x"), (7.0, 3.0, 0.5, -2.0), [])
    assert ranking("ranked-ranks", {**row, "ranks": [2, 4, 1, 3]}) == (("y", "w", "z", "x"), (-1.0, -2.0, -3.0, -4.0), [])
    (best, other), _, _ = ranking("rrhf", {"query": "q", "responses": ["a", "b"], "scores": [0.1, 0.9]})
    assert (best, other) == ((Message("assistant", "b"),), (Message("assistant", "a"),))


def test_of_a_ranking_each_answer_that_is_tied_repeated_empty_or_without_a_number_is_left_out_and_told() -> None:
    row = {"prompt": "q", "responses": ["w", "x", "y", "w", " ", "z"], "scores": [5, 3, 3, 2, 1, None]}
    assert ranking("ranked-scores", row) == (
        ("w", "x"),
        (5.0, 3.0),
        ["answer-unscored", "answer-tied", "answer-repeated", "answer-empty"],
    )


@pytest.mark.parametrize(
    ("responses", "scores", "kind"),
    [
        (["a", "b", "c"], [2, 2, 2], "tie"),
        (["a", "b", "c"], [2, None, None], "unscored"),
        (["a", "a", "a"], [3, 2, 1], "identical"),
        (["a", "", " "], [3, 2, 1], "empty-answer"),
        (["a", "b", ""], [3, 3, 1], "tie"),
    ],
)
def test_a_ranking_of_which_fewer_than_two_answers_are_left_is_dropped(responses: list[str], scores: list[Any], kind: str) -> None:
    row = Row({"prompt": "q", "responses": responses, "scores": scores}, Source("pairs.jsonl", 1))
    (problem,) = BY_NAME["ranked-scores"].to_records(row)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.severity) == (kind, "dropped")


def test_every_answer_of_a_ranking_is_checked_and_named_by_its_place() -> None:
    turn = {"role": "user", "content": "q"}
    row = {"prompt": [turn], "responses": ["a", [{**turn, "content": "b"}], "c"], "scores": [3, 2, 1]}
    (problem,) = BY_NAME["ranked-scores-messages"].to_records(Row(row, Source("pairs.jsonl", 4)))
    assert isinstance(problem, Problem)
    assert str(problem).startswith("pairs.jsonl:4: answer 2 begins with the user's turn")
    assert (problem.kind, problem.severity) == ("wrong-role", "error")


def test_a_labelled_row_is_checked_as_an_answer_of_a_pair_is() -> None:
    def kinds(**parts: Any) -> list[str]:
        row = Row({"prompt": "q", "completion": "a", "label": True, **parts}, Source("pairs.jsonl", 1))
        return [item.kind if isinstance(item, Problem) else type(item).__name__ for item in BY_NAME["kto"].to_records(row)]

    assert kinds() == ["LabelledAnswer"]
    assert kinds(completion="a\x07") == ["LabelledAnswer", "control-characters"]
    assert kinds(completion=" ") == ["empty-answer"]
    assert kinds(prompt=" ") == ["empty-prompt"]
    assert kinds(label="good") == ["wrong-type"]
    assert kinds(tools=[{"name": "f"}]) == ["mixed-chat-and-plain"]

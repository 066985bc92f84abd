from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.data.limits import apply_limit
from orpo.data.row import Problem


def example(prompt: list[int], *completions: list[int], **values: tuple[Any, ...]) -> TokenizedExample:
    arrays = tuple(np.array(ids, np.int32) for ids in completions)
    return TokenizedExample(np.array(prompt, np.int32), arrays, Source("a.jsonl", 3), **values)


@pytest.mark.parametrize("overlong", ["drop", "cut-completion", "error"])
def test_what_fits_exactly_is_left_as_it_is(overlong):
    item = example([1, 2], [3, 4, 5], [6])
    assert apply_limit(item, 5, overlong) is item


@pytest.mark.parametrize(("overlong", "severity"), [("drop", "dropped"), ("error", "error")])
def test_a_row_is_too_long_when_either_answer_is(overlong, severity):
    for item in (example([1, 2], [3, 4, 5], [6]), example([1, 2], [6], [3, 4, 5])):
        problem = apply_limit(item, 4, overlong)
        assert isinstance(problem, Problem)
        assert (problem.kind, problem.severity, problem.source) == ("too-long", severity, item.source)
        assert "5 tokens, more than max_length 4" in problem.message


def test_cutting_shortens_only_the_answers_that_are_too_long_and_keeps_the_prompt():
    cut = apply_limit(example([1, 2], [3, 4, 5], [6]), 4, "cut-completion")
    assert isinstance(cut, TokenizedExample)
    assert (cut.prompt_ids.tolist(), [ids.tolist() for ids in cut.completions]) == ([1, 2], [[3, 4], [6]])


@pytest.mark.parametrize(("overlong", "severity"), [("drop", "dropped"), ("cut-completion", "dropped"), ("error", "error")])
def test_a_prompt_that_leaves_no_room_has_its_own_kind_and_no_answer_is_ever_empty(overlong, severity):
    problem = apply_limit(example([1, 2, 3, 4], [5], [6]), 4, overlong)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.severity) == ("prompt-too-long", severity)


def test_answers_that_a_cut_makes_equal_are_dropped():
    problem = apply_limit(example([1, 2], [3, 4, 5], [3, 4]), 4, "cut-completion")
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.severity) == ("identical-after-cut", "dropped")


def test_a_demonstration_can_be_cut():
    cut = apply_limit(example([1], [3, 4, 5]), 2, "cut-completion")
    assert isinstance(cut, TokenizedExample)
    assert [ids.tolist() for ids in cut.completions] == [[3]]


def test_a_cut_answer_keeps_its_label():
    cut = apply_limit(example([1], [3, 4, 5], labels=(False,)), 3, "cut-completion")
    assert isinstance(cut, TokenizedExample)
    assert ([ids.tolist() for ids in cut.completions], cut.labels) == ([[3, 4]], (False,))


def test_of_ranked_answers_that_a_cut_makes_equal_the_best_stays_with_its_score():
    cut = apply_limit(example([1], [3, 4, 5], [6, 7], [3, 4, 8], [6], scores=(4.0, 3.0, 2.0, 1.0)), 3, "cut-completion")
    assert isinstance(cut, TokenizedExample)
    assert ([ids.tolist() for ids in cut.completions], cut.scores) == ([[3, 4], [6, 7], [6]], (4.0, 3.0, 1.0))
    problem = apply_limit(example([1], [3, 4, 5], [3, 4, 8], [3, 4], scores=(4.0, 3.0, 2.0)), 3, "cut-completion")
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.severity) == ("identical-after-cut", "dropped")

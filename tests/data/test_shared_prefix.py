"""Where the prompt that two plain texts share is cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo.data.shapes.problems import RowProblem
from orpo.data.shapes.shared_prefix import shared_prompt

WORDS = st.lists(st.sampled_from(["What", "is", "it", "?", ".", " ", "\n", "Yes", "No", "他", "。", '"', "A:"]), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("shared", "prompt"),
    [
        ("What is it? It is ", "What is it?"),
        ("What is it?\nIt is ", "What is it?\n"),
        ("User: What is it? Now.\nAssistant: It is. It is ", "User: What is it? Now.\nAssistant:"),
        ("User: a\nAssistant: b. c\nUser: d\nAssistant: e. f ", "User: a\nAssistant: b. c\nUser: d\nAssistant:"),
        ("USER: hi ASSISTANT: I ", "USER: hi ASSISTANT:"),
        ("### Instruction:\nAdd.\n\n### Response:\nSum: ", "### Instruction:\nAdd.\n\n### Response:"),
        ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nWell. ", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
        ("[INST] hi [/INST] Well. ", "[INST] hi [/INST]"),
        ("The cat sat on the ", "The cat sat on the"),
        ("The cat sat on the ma", "The cat sat on the"),
        ("他是谁？他是", "他是谁？"),
        ('He said "Why?" And ', 'He said "Why?"'),
        ("I am an assistant: a note. On the ", "I am an assistant: a note."),
    ],
)
def test_the_cut_is_at_a_turn_else_a_line_or_sentence_else_white_space(shared: str, prompt: str) -> None:
    chosen, rejected = f"{shared}xylophone", f"{shared}zebra"
    assert shared_prompt(chosen, rejected) == (prompt, chosen[len(prompt) :], rejected[len(prompt) :])


def test_a_whole_word_apart_is_cut_before_its_space() -> None:
    assert shared_prompt("The cat sat", "The cat ran") == ("The cat", " sat", " ran")


@pytest.mark.parametrize(("chosen", "rejected"), [("apple", "pear"), ("", "pear"), ("sunlight", "sunshine"), ("一二三", "一二四")])
def test_texts_without_a_shared_prompt_are_an_error(chosen: str, rejected: str) -> None:
    with pytest.raises(RowProblem) as caught:
        shared_prompt(chosen, rejected)
    assert (caught.value.kind, caught.value.severity) == ("no-common-prompt", "error")


def test_a_text_that_is_the_beginning_of_the_other_has_an_empty_answer_unless_it_can_be_cut_before() -> None:
    assert shared_prompt("Why? Because.", "Why? Because. Really.") == ("Why?", " Because.", " Because. Really.")
    with pytest.raises(RowProblem) as caught:
        shared_prompt("Why?", "Why? Because.")
    assert (caught.value.kind, caught.value.severity) == ("empty-answer", "dropped")
    assert shared_prompt("Q: Why?\nA: So", "Q: Why?\nA:") == ("Q: Why?\nA:", " So", "")


@given(WORDS, WORDS, WORDS)
def test_the_parts_give_the_texts_back_and_no_word_is_cut(shared: str, left: str, right: str) -> None:
    chosen, rejected = shared + left, shared + right
    try:
        prompt, good, bad = shared_prompt(chosen, rejected)
    except RowProblem:
        return
    assert (prompt + good, prompt + bad) == (chosen, rejected)
    assert prompt
    for answer in (good, bad):
        assert not (prompt[-1].isascii() and prompt[-1].isalnum() and answer[:1].isalnum()), (prompt, answer)

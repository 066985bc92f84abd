"""HH-RLHF transcripts: turns in, turns out, and pairs cut at the right turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo.core.records import Message, PreferencePair, Source
from orpo.data.formats import SHAPES
from orpo.data.row import Problem, Row
from orpo.data.shapes.problems import RowProblem
from orpo.data.transcripts import as_text, looks_like_transcript, parse_transcript, render_transcript

HH = next(shape for shape in SHAPES if shape.name == "hh-transcripts")
CONTENTS = (
    st.text(max_size=40).map(lambda text: text.strip(" \t\r\n")).filter(lambda text: "Human:" not in text and "Assistant:" not in text)
)
TURNS = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), CONTENTS), min_size=1, max_size=6).map(tuple)
TRICKY = st.lists(st.sampled_from(["Human", "Assistant", ":", "\n", "\n\n", " ", "a"]), max_size=8).map("".join)


def read(chosen: str, rejected: str) -> list[PreferencePair | Problem]:
    return HH.to_pairs(Row({"chosen": chosen, "rejected": rejected}, Source("hh.jsonl", 1)))


def pair(chosen: str, rejected: str) -> PreferencePair:
    found = read(chosen, rejected)[0]
    assert isinstance(found, PreferencePair), found
    return found


def kind(chosen: str, rejected: str) -> tuple[str, str]:
    found = read(chosen, rejected)[-1]
    assert isinstance(found, Problem), found
    return found.kind, found.severity


@given(TURNS)
def test_rendered_turns_parse_to_the_same_turns(turns: tuple[Message, ...]) -> None:
    assert parse_transcript(render_transcript(turns)) == turns


@given(TRICKY)
def test_whatever_parses_is_stable_under_rendering(text: str) -> None:
    turns = parse_transcript("Human:" + text)
    assert parse_transcript(render_transcript(turns)) == turns


def test_turns_lose_the_white_space_around_them_and_keep_the_rest() -> None:
    text = "\n\nHuman:  one\n\ntwo \n\nAssistant: Human: said so\r\n\r\nHuman:\n\nAssistant:"
    assert parse_transcript(text) == (
        Message("user", "one\n\ntwo"),
        Message("assistant", "Human: said so"),
        Message("user", ""),
        Message("assistant", ""),
    )


def test_text_before_the_first_turn_is_an_error() -> None:
    with pytest.raises(RowProblem, match="begins with 'Note'"):
        parse_transcript("Note\n\nHuman: hi\n\nAssistant: hello")
    assert kind("\n\nHuman: hi\n\nAssistant: yes", "plain text") == ("not-a-transcript", "error")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\nHuman: a\n\nAssistant: b", True),
        ("Human: a\n\nAssistant:", True),
        ("Human: a", False),
        ("a\n\nHuman: b\n\nAssistant: c", False),
    ],
)
def test_a_transcript_begins_with_a_turn_and_has_an_assistants(text: str, expected: bool) -> None:
    assert looks_like_transcript(text) is expected


def test_the_prompt_ends_with_the_last_shared_human_turn() -> None:
    before = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"
    found = pair(f"{before}\n\nAssistant: good", f"{before}\n\nAssistant: bad")
    assert [turn.content for turn in found.prompt if isinstance(turn, Message)] == ["a", "b", "c"]
    assert (found.chosen, found.rejected) == ((Message("assistant", "good"),), (Message("assistant", "bad"),))


def test_transcripts_that_part_earlier_give_answers_of_several_turns() -> None:
    found = pair("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "\n\nHuman: a\n\nAssistant: other")
    assert [turn.content for turn in found.chosen if isinstance(turn, Message)] == ["b", "c", "d"]
    assert found.rejected == (Message("assistant", "other"),)


def test_transcripts_that_part_at_a_human_turn_answer_different_prompts() -> None:
    assert kind("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: x\n\nAssistant: b") == ("prompts-differ", "error")


def test_transcripts_that_end_with_a_human_turn_or_an_empty_answer() -> None:
    start = "\n\nHuman: a\n\nAssistant:"
    assert kind(f"{start} b", f"{start} c\n\nHuman: thanks") == ("trailing-user-turn", "warning")
    assert kind(f"{start} b", "\n\nHuman: a") == ("empty-answer", "dropped")
    assert kind(f"{start} b", start) == ("empty-answer", "dropped")
    assert kind(f"{start} b", f"{start} b") == ("identical", "dropped")


def test_a_system_column_beside_transcripts_is_an_error() -> None:
    row = Row({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c", "system": "s"}, Source("hh.jsonl", 1))
    problem = HH.to_pairs(row)[0]
    assert isinstance(problem, Problem)
    assert problem.kind == "mixed-chat-and-plain"


def test_as_text_gives_the_transcripts_back() -> None:
    before = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    text = as_text(pair(f"{before} good\n\nHuman: more\n\nAssistant: better", f"{before} bad"))
    assert text.prompt == before
    assert (text.chosen, text.rejected) == (" good\n\nHuman: more\n\nAssistant: better", " bad")

"""What is said about single rows: errors with their place, rows left out and counted, warnings beside a pair."""

from __future__ import annotations

from typing import Any

import pytest

from orpo.core.records import Message, PreferencePair, Source
from orpo.data.formats import SHAPES, read_pairs
from orpo.data.row import Problem, Row

BY_NAME = {shape.name: shape for shape in SHAPES}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def items(name: str, value: dict[str, Any]) -> list[PreferencePair | Problem]:
    return BY_NAME[name].to_pairs(Row(value, Source("pairs.jsonl", 7)))


def pair(name: str, value: dict[str, Any]) -> PreferencePair:
    found = items(name, value)
    assert len(found) == 1, found
    assert isinstance(found[0], PreferencePair), found
    return found[0]


def told(name: str, value: dict[str, Any]) -> tuple[str, str]:
    """(kind, severity) of the row's one problem, whose text must begin with the place."""
    problems = [item for item in items(name, value) if isinstance(item, Problem)]
    assert len(problems) == 1, problems
    assert str(problems[0]).startswith("pairs.jsonl:7: ")
    assert any(isinstance(item, PreferencePair) for item in items(name, value)) == (problems[0].severity == "warning")
    return problems[0].kind, problems[0].severity


STRINGS = {"prompt": "q", "chosen": "a", "rejected": "b"}
CHAT = {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
IMPLICIT = {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"rejected": None}, "null"),
        ({"rejected": 3}, "wrong-type"),
        ({"rejected": ["b"]}, "wrong-type"),
        ({"rejected": [assistant("b")]}, "mixed-chat-and-plain"),
        ({"rejected": '[{"role": "assistant", "content": "b"}]'}, "mixed-chat-and-plain"),
        ({"prompt": " \n"}, "empty-prompt"),
        ({"system": "be kind"}, "mixed-chat-and-plain"),
        ({"tools": '[{"name": "add"}]'}, "mixed-chat-and-plain"),
        ({"image": "a.png"}, "images-not-supported"),
        ({"videos": ["a.mp4"]}, "images-not-supported"),
    ],
)
def test_a_plain_row_that_cannot_be_a_pair_is_an_error(change: dict[str, Any], kind: str) -> None:
    assert told("prompt-chosen-rejected", {**STRINGS, **change}) == (kind, "error")


def test_a_missing_column_lists_the_columns_found_and_the_mapping_flag() -> None:
    problem = items("prompt-chosen-rejected", {"prompt": "q", "chosen": "a", "bad": "b"})[0]
    assert str(problem) == (
        "pairs.jsonl:7: column 'rejected' is missing; columns found: prompt, chosen, bad\n"
        "  to fix:   add it to the row, or name the column that holds it: --columns rejected=NAME"
    )


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"prompt": "q"}, "mixed-chat-and-plain"),
        ({"prompt": []}, "empty-messages"),
        ({"prompt": 5}, "wrong-type"),
        ({"prompt": ["q"]}, "wrong-type"),
        ({"prompt": [{"role": "narrator", "content": "q"}]}, "unknown-role"),
        ({"prompt": [{"from": "narrator", "value": "q"}]}, "unknown-role"),
        ({"prompt": [{"role": 3, "content": "q"}]}, "unknown-role"),
        ({"prompt": [{"content": "q"}]}, "unknown-role"),
        ({"prompt": [{"role": "user"}]}, "message-without-content"),
        ({"prompt": [user(None)]}, "message-without-content"),
        ({"prompt": [user(3)]}, "wrong-type"),
        ({"prompt": [user([{"type": "image_url", "image_url": {"url": "x"}}])]}, "images-not-supported"),
        ({"prompt": [user("")]}, "empty-prompt"),
        ({"prompt": [{"role": "system", "content": "q"}]}, "prompt-not-answerable"),
        ({"prompt": [user("q"), assistant("well")]}, "prompt-not-answerable"),
        ({"chosen": [user("a")]}, "prompts-differ"),
        ({"chosen": [user("other"), assistant("a")]}, "prompts-differ"),
        ({"chosen": "[{'role': 'assistant', 'content': 'a'}]"}, "messages-not-json"),
        ({"tools": "[{"}, "tools-not-json"),
        ({"tools": "3"}, "tools-not-json"),
        ({"tools": [5]}, "tools-not-json"),
    ],
)
def test_a_chat_row_that_cannot_be_a_pair_is_an_error(change: dict[str, Any], kind: str) -> None:
    assert told("messages", {**CHAT, **change}) == (kind, "error")


def test_an_answer_by_the_user_is_an_error() -> None:
    row = {"conversations": [user("q")], "chosen": user("a"), "rejected": assistant("b")}
    assert told("sharegpt-ranking", row) == ("wrong-role", "error")
    assert told("ms-swift", {"messages": [user("q")], "rejected_response": "b"}) == ("wrong-role", "error")


def test_conversations_that_part_before_the_assistant_speaks_are_an_error_naming_the_turn() -> None:
    row = {
        "chosen": [user("q"), assistant("a"), user("x"), assistant("c")],
        "rejected": [user("q"), assistant("a"), user("y"), assistant("d")],
    }
    assert told("implicit-prompt-messages", row) == ("prompts-differ", "error")
    assert "turn 3 of chosen is the user's" in str(items("implicit-prompt-messages", row)[0])
    assert told("implicit-prompt-messages", {**IMPLICIT, "rejected": [user("other"), assistant("b")]}) == ("prompts-differ", "error")
    alone = {"chosen": [assistant("a")], "rejected": [assistant("b")]}
    assert told("implicit-prompt-messages", alone) == ("no-common-prompt", "error")


@pytest.mark.parametrize(
    ("name", "row", "kind"),
    [
        ("prompt-chosen-rejected", {**STRINGS, "rejected": "a"}, "identical"),
        ("prompt-chosen-rejected", {**STRINGS, "chosen": " \n"}, "empty-answer"),
        ("messages", {**CHAT, "rejected": [assistant("a")]}, "identical"),
        ("messages", {**CHAT, "rejected": [assistant(" ")]}, "empty-answer"),
        ("implicit-prompt-messages", {**IMPLICIT, "rejected": IMPLICIT["chosen"]}, "identical"),
        ("implicit-prompt-messages", {**IMPLICIT, "rejected": [user("q")]}, "empty-answer"),
        ("implicit-prompt-strings", {"chosen": "Why? Because.", "rejected": "Why? Because."}, "identical"),
        ("prompt-chosen-rejected", {**STRINGS, "chosen_rating": 3, "rejected_rating": 3.0}, "tie"),
        ("prompt-chosen-rejected", {**STRINGS, "score_chosen": "3.0", "score_rejected": "3"}, "tie"),
        ("argilla-cleaned", {**CHAT, "prompt": "q", "chosen-rating": 4.5, "rejected-rating": 4.5}, "tie"),
        ("distilabel-orca", {"input": "q", "chosen": "a", "rejected": "b", "status": "tie"}, "tie"),
        ("distilabel-orca", {"input": "q", "chosen": "a", "rejected": "b", "rating": [7.0, 7.0]}, "tie"),
        ("ranked-scores", {"prompt": "q", "responses": ["a", "b"], "scores": [2, 2.0]}, "tie"),
        ("ranked-scores", {"prompt": "q", "responses": ["a", "b"], "scores": [2, None]}, "unscored"),
        ("ranked-scores", {"prompt": "q", "responses": ["same", "same"], "scores": [1, 2]}, "identical"),
    ],
)
def test_a_row_without_a_preference_is_dropped_and_counted(name: str, row: dict[str, Any], kind: str) -> None:
    assert told(name, row) == (kind, "dropped")


@pytest.mark.parametrize(
    ("name", "row", "kind"),
    [
        ("prompt-chosen-rejected", {**STRINGS, "chosen": "a\x07"}, "control-characters"),
        ("messages", {**CHAT, "rejected": [assistant("b\x1b[0m")]}, "control-characters"),
        ("messages", {**CHAT, "prompt": [user("q"), user("again")]}, "roles-do-not-alternate"),
        ("messages", {**CHAT, "chosen": [assistant("a"), assistant("more")]}, "roles-do-not-alternate"),
        ("messages", {**CHAT, "chosen": [assistant("a"), user("thanks")]}, "trailing-user-turn"),
        ("messages", {**CHAT, "prompt": [{"role": "system", "content": " "}, user("q")]}, "empty-turn"),
        ("prompt-chosen-rejected", {**STRINGS, "score_chosen": 1.0, "score_rejected": 2.0}, "ratings-reversed"),
        ("prompt-chosen-rejected", {"prompt": "So", "chosen": "So a", "rejected": "So b"}, "prompt-repeated"),
        ("messages", {**CHAT, "prompt": [{"role": "system", "content": "x"}, user("q")], "system": "y"}, "system-twice"),
        ("prompt-and-conversations", {**IMPLICIT, "prompt": "quite another"}, "prompt-column-differs"),
    ],
)
def test_a_row_that_is_odd_is_a_pair_with_a_warning(name: str, row: dict[str, Any], kind: str) -> None:
    assert told(name, row) == (kind, "warning")


def test_tabs_and_line_ends_are_no_control_characters() -> None:
    pair("prompt-chosen-rejected", {**STRINGS, "chosen": "a\t\r\nb"})


def test_the_users_turns_after_the_last_answer_are_cut_off() -> None:
    found = items("messages", {**CHAT, "chosen": [assistant("a"), user("thanks"), user("bye")]})[0]
    assert isinstance(found, PreferencePair)
    assert found.chosen == (Message("assistant", "a"),)


def test_the_roles_of_other_tools_become_ours() -> None:
    turns = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a"},
        {"from": "observation", "value": "o"},
    ]
    row = {"conversations": turns, "chosen": {"from": "model", "value": "c"}, "rejected": {"role": "Assistant", "content": "d"}}
    found = pair("sharegpt-ranking", row)
    assert [turn.role for turn in found.prompt if isinstance(turn, Message)] == ["system", "user", "assistant", "tool"]
    assert (found.chosen, found.rejected) == ((Message("assistant", "c"),), (Message("assistant", "d"),))


def test_text_parts_are_joined_and_null_keys_left_out() -> None:
    row = {**CHAT, "prompt": [{**user([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]), "name": None, "id": 4}]}
    assert pair("messages", row).prompt == (Message("user", "one two", {"id": 4}),)


def test_the_prompt_of_a_whole_conversation_is_not_doubled() -> None:
    for name in ("prompt-and-conversations", "ultrafeedback-binarized", "orpo-dpo-mix"):
        found = pair(name, {**IMPLICIT, "prompt": "q"})
        assert (found.prompt, found.chosen, found.rejected) == (
            (Message("user", "q"),),
            (Message("assistant", "a"),),
            (Message("assistant", "b"),),
        )
    whole = {**IMPLICIT, "prompt": [user("q")]}
    assert pair("messages", whole) == pair("messages", CHAT)


def test_an_answer_beside_a_whole_conversation_is_an_error() -> None:
    row = {"prompt": "q", "chosen": [assistant("a")], "rejected": [user("q"), assistant("b")]}
    assert told("prompt-and-conversations", row) == ("prompts-differ", "error")
    assert "chosen begins with the assistant's turn, rejected with the user's" in str(items("prompt-and-conversations", row)[0])


def test_answers_of_several_turns_are_kept_whole() -> None:
    later = [user("and?"), assistant("done")]
    row = {"chosen": [user("q"), assistant("a"), *later], "rejected": [user("q"), assistant("b"), *later]}
    found = pair("implicit-prompt-messages", row)
    assert found.prompt == (Message("user", "q"),)
    assert [turn.content for turn in found.chosen if isinstance(turn, Message)] == ["a", "and?", "done"]


def test_answers_that_share_their_first_assistant_turn_begin_with_it() -> None:
    row = {"chosen": [user("q"), assistant("x"), assistant("a")], "rejected": [user("q"), assistant("x"), assistant("b")]}
    found = items("implicit-prompt-messages", row)[0]
    assert isinstance(found, PreferencePair)
    assert (len(found.prompt), len(found.chosen), len(found.rejected)) == (1, 2, 2)


def test_a_system_column_is_the_first_message_and_an_empty_one_is_none() -> None:
    row = {"question": "q", "chosen": "a", "rejected": "b"}
    assert pair("orca-dpo-pairs", {**row, "system": "s"}).prompt == (Message("system", "s"), Message("user", "q"))
    assert pair("orca-dpo-pairs", {**row, "system": ""}).prompt == (Message("user", "q"),)


def test_alpaca_history_and_input_come_before_the_answer() -> None:
    row = {"instruction": "i", "input": "x", "chosen": "a", "rejected": "b", "history": [["q1", "a1"]], "system": "s"}
    contents = [turn.content for turn in pair("alpaca-ranking", row).prompt if isinstance(turn, Message)]
    assert contents == ["s", "q1", "a1", "i\nx"]
    assert told("alpaca-ranking", {**row, "history": [["q1"]]}) == ("wrong-type", "error")


def test_ranked_lists_give_the_best_against_the_worst() -> None:
    row = {"prompt": "q", "responses": ["w", "x", "y", "z"]}
    by_score = pair("ranked-scores", {**row, "scores": [0.5, -2, 7, 7]})
    by_rank = pair("ranked-ranks", {**row, "ranks": [2, 4, 1, 3]})
    assert (by_score.chosen, by_score.rejected) == (by_rank.chosen, by_rank.rejected) == ("y", "x")
    assert told("ranked-scores", {**row, "scores": [1, 2]}) == ("scores-mismatch", "error")
    assert told("ranked-scores", {**row, "scores": [1, 2, 3, "4"]}) == ("wrong-type", "error")
    assert told("ranked-scores", {**row, "scores": [1, 2, 3, float("nan")]}) == ("wrong-type", "error")


def test_extra_columns_of_only_some_rows_are_told_once() -> None:
    rows = [Row({**STRINGS, **extra}, Source("pairs.jsonl", number)) for number, extra in enumerate([{}, {"id": 1}, {"id": 2}], start=1)]
    found = list(read_pairs(BY_NAME["prompt-chosen-rejected"], lambda: rows))
    problems = [item for item in found if isinstance(item, Problem)]
    assert [(problem.kind, problem.severity, str(problem.source)) for problem in problems] == [
        ("extra-columns", "warning", "pairs.jsonl:2")
    ]
    assert [item.metadata for item in found if isinstance(item, PreferencePair)] == [{}, {"id": 1}, {"id": 2}]


def test_problems_of_the_file_are_handed_through() -> None:
    broken = Problem("malformed-json", "line 1", Source("pairs.jsonl", 1))
    rows = [broken, Row(STRINGS, Source("pairs.jsonl", 2))]
    found = list(read_pairs(BY_NAME["prompt-chosen-rejected"], lambda: rows))
    assert found[0] is broken
    assert len(found) == 2

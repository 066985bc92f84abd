"""Tool calls and tools in rows: whichever way a file spells them, a pair has them in one form."""

from __future__ import annotations

from typing import Any

from orpo.core.records import Message, PreferencePair, Source
from orpo.data.formats import SHAPES
from orpo.data.row import Problem, Row

BY_NAME = {shape.name: shape for shape in SHAPES}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CHAT = {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]}


def only(name: str, value: dict[str, Any]) -> PreferencePair | Problem:
    (found,) = BY_NAME[name].to_pairs(Row(value, Source("pairs.jsonl", 7)))
    return found


def pair(name: str, value: dict[str, Any]) -> PreferencePair:
    found = only(name, value)
    assert isinstance(found, PreferencePair), found
    return found


def told(name: str, value: dict[str, Any]) -> tuple[str, str]:
    """(kind, severity) of a row that is no pair."""
    found = only(name, value)
    assert isinstance(found, Problem), found
    return found.kind, found.severity


def test_tool_calls_need_no_content_and_json_arguments_become_objects() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"left": 2}'}}
    row = {**CHAT, "chosen": [{"role": "assistant", "content": None, "tool_calls": [call]}], "tools": '[{"name": "add"}]'}
    found = pair("messages", row)
    parsed = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"left": 2}}}
    assert found.chosen == (Message("assistant", "", {"tool_calls": [parsed]}),)
    assert found.tools == ({"name": "add"},)


def test_arguments_that_are_no_json_stay_as_they_are() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": "{left: 2"}}
    found = pair("messages", {**CHAT, "rejected": [{"role": "assistant", "content": None, "tool_calls": [call]}]})
    assert found.rejected == (Message("assistant", "", {"tool_calls": [call]}),)


def test_a_function_call_turn_becomes_an_assistants_tool_call() -> None:
    said = {"from": "function_call", "value": '{"name": "add", "arguments": {"left": 2}}'}
    row = {"conversations": [{"from": "human", "value": "q"}], "chosen": said, "rejected": {"from": "gpt", "value": "no"}}
    call = {"type": "function", "function": {"name": "add", "arguments": {"left": 2}}}
    assert pair("sharegpt-ranking", row).chosen == (Message("assistant", "", {"tool_calls": [call]}),)
    assert told("sharegpt-ranking", {**row, "chosen": {**said, "value": "add(2)"}}) == ("tool-call-not-json", "error")


def test_conversations_with_different_tool_calls_part_there() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"left": 2}}}
    other = {"type": "function", "function": {"name": "add", "arguments": {"left": 3}}}
    chosen, rejected = ({"role": "assistant", "content": "", "tool_calls": [one]} for one in (call, other))
    found = pair("implicit-prompt-messages", {"chosen": [user("q"), chosen], "rejected": [user("q"), rejected]})
    assert found.prompt == (Message("user", "q"),)


def test_openai_tools_are_read_from_the_input() -> None:
    row = {"input": {"messages": [user("q")], "tools": [{"type": "function"}]}, "preferred_output": [assistant("a")]}
    assert pair("openai-preference", {**row, "non_preferred_output": [assistant("b")]}).tools == ({"type": "function"},)
    assert told("openai-preference", {**row, "input": {}, "non_preferred_output": [assistant("b")]}) == ("missing-column", "error")

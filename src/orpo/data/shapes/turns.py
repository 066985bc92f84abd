"""Messages as files hold them -> `Message`: roles of all tools in one spelling, {from, value}, text parts, tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orpo.core.records import Conversation, Message
from orpo.data.shapes.problems import RowProblem

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "function_call"),
}
"""What the tools of this field call the speakers. A 'function_call' is an assistant's turn whose content is the call as JSON."""

_OWN_KEYS = ("role", "from", "content", "value", "function_call")


def conversation(items: Sequence[Any], place: str) -> Conversation:
    """The messages of a list; RowProblem when it is empty or an entry is no message."""
    if not items:
        raise RowProblem("empty-messages", f"{place} is an empty list of messages", fix="give at least one message, or remove the row")
    return tuple(message(item, f"{place} turn {number}") for number, item in enumerate(items, start=1))


def message(value: Any, place: str) -> Message:
    """One message with its role in our spelling; keys beside role and content that are not null go to `extra`."""
    if not isinstance(value, Mapping):
        raise RowProblem("wrong-type", f"{place} is {_shown(value)}, expected an object with role and content")
    role = _role(value, place)
    extra = {key: item for key, item in value.items() if key not in _OWN_KEYS and item is not None}
    raw = value.get("content", value.get("value"))
    if role == "function_call":
        return Message("assistant", "", {**extra, "tool_calls": _calls_from_text(raw, place)})
    calls = _tool_calls(value, place)
    if calls:
        extra["tool_calls"] = calls
    else:
        extra.pop("tool_calls", None)
    return Message(role, _content(raw, place, has_calls=bool(calls)), extra)


def _role(value: Mapping[str, Any], place: str) -> str:
    name = value.get("role", value.get("from"))
    if name is None:
        raise RowProblem("unknown-role", f"{place} has no role", fix="every message needs a role: user, assistant, system or tool")
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        known = ", ".join(sorted(ROLES))
        raise RowProblem("unknown-role", f"{place} has the role {name!r}", fix=f"use user, assistant, system or tool (also known: {known})")
    return role


def _content(raw: Any, place: str, *, has_calls: bool) -> str:
    if isinstance(raw, str):
        return raw
    if raw is None:
        if has_calls:
            return ""
        raise RowProblem("message-without-content", f"{place} has no content", fix="give the message a text, or remove it")
    if isinstance(raw, list | tuple):
        return "".join(_part(part, place) for part in raw)
    raise RowProblem("wrong-type", f"the content of {place} is {_shown(raw)}, expected text")


def _part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    found = part.get("type", "an unknown part") if isinstance(part, Mapping) else _shown(part)
    raise RowProblem(
        "images-not-supported",
        f"{place} holds a part of type {found!r}: only text is supported",
        fix="images, sound and video cannot be trained on here; use the rows that are text alone",
    )


def _tool_calls(value: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    """The calls of a message, from tool_calls (a list, or JSON text) or the older function_call."""
    raw = value.get("tool_calls")
    if raw is None and isinstance(value.get("function_call"), Mapping):
        raw = [{"type": "function", "function": value["function_call"]}]
    if isinstance(raw, str) and raw.strip():
        raw = _json(raw, "tool-call-not-json", f"tool_calls of {place}")
    if not raw:
        return []
    if not isinstance(raw, list | tuple) or not all(isinstance(call, Mapping) for call in raw):
        raise RowProblem("wrong-type", f"tool_calls of {place} is {_shown(raw)}, expected a list of objects")
    return [_with_parsed_arguments(call) for call in raw]


def _calls_from_text(raw: Any, place: str) -> list[dict[str, Any]]:
    """The calls of a function_call turn: its content is {"name", "arguments"} as JSON, or a list of these."""
    calls = _json(raw, "tool-call-not-json", place) if isinstance(raw, str) else raw
    calls = [calls] if isinstance(calls, Mapping) else calls
    if not isinstance(calls, list) or not calls or not all(isinstance(call, Mapping) and "name" in call for call in calls):
        raise RowProblem("tool-call-not-json", f"{place} is a function call without a name: {_shown(raw)}")
    return [_with_parsed_arguments({"type": "function", "function": call}) for call in calls]


def _with_parsed_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with arguments as an object: templates write them as JSON, and would write a JSON text a second time.

    Arguments that are no JSON stay as they are: a call that a model got wrong is what a rejected answer may hold.
    """
    inner = call.get("function", call)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(inner["arguments"])
    except ValueError:
        return dict(call)
    if not isinstance(arguments, dict):
        return dict(call)
    parsed = {**inner, "arguments": arguments}
    return {**call, "function": parsed} if "function" in call else parsed


def tools(value: Any, place: str) -> tuple[Mapping[str, Any], ...]:
    """The tools of a column: a list of objects, the same as JSON text, or nothing."""
    parsed = _json(value, "tools-not-json", place) if isinstance(value, str) and value.strip() else value
    if not parsed:
        return ()
    items = [parsed] if isinstance(parsed, Mapping) else parsed
    if not isinstance(items, list | tuple):
        raise RowProblem("tools-not-json", f"{place} is {_shown(value)}, expected a list of tools or its JSON text")
    return tuple(_tool(item, place) for item in items)


def _tool(item: Any, place: str) -> Mapping[str, Any]:
    parsed = _json(item, "tools-not-json", place) if isinstance(item, str) else item
    if not isinstance(parsed, Mapping):
        raise RowProblem("tools-not-json", f"{place} holds {_shown(item)}, expected an object for each tool")
    return parsed


def _json(text: str, kind: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowProblem(kind, f"{place} is not valid JSON ({error}): {_shown(text)}") from error


def _shown(value: Any) -> str:
    """The value's type, and its beginning when that helps."""
    text = repr(value)
    return f"{type(value).__name__} {text[:40]}{'...' if len(text) > 40 else ''}"

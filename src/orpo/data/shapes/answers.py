"""The checks that hold for every shape: a prompt and its answers go in, ready to be a record, or the problem that keeps them from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orpo.core.records import Conversation, Message
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.problems import RowProblem, dropped

Completion = str | Conversation
Warnings = tuple[tuple[str, str], ...]
"""Each as (kind, message)."""

MEDIA = ("images", "image", "videos", "video", "audios", "audio")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_AFTER = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant"), "system": ("user",)}


@dataclass(frozen=True, slots=True)
class CheckedAnswers:
    """A prompt and its completions, all text or all messages, after the checks, and what is worth a warning."""

    prompt: str | Conversation
    completions: tuple[Completion, ...]
    tools: tuple[Mapping[str, Any], ...]
    warnings: Warnings


def checked_answers(
    prompt: str | Conversation,
    answers: Mapping[str, Completion],
    fields: Fields,
    *,
    tools: tuple[Mapping[str, Any], ...] = (),
    told: Warnings = (),
) -> CheckedAnswers:
    """Prompt and answers ready to be a record, with the warnings `told` before and its own; RowProblem when they cannot be one.

    `answers` go by what a message calls them: 'chosen' and 'rejected' of a pair, else 'the answer' or 'answer 2'.
    """
    if isinstance(prompt, str):
        _check_text(prompt, answers, fields)
        completions = tuple(answers.values())
        return CheckedAnswers(prompt, completions, (), (*told, *_control_warnings(prompt, completions)))
    warnings = [*told]
    turns = [_answer(answer, name, warnings) for name, answer in answers.items()]
    system = fields.optional_text("system")
    prompt = with_system(prompt, system)
    check_prompt(prompt)
    _refuse_identical(turns)
    if system.strip() and system != prompt[0].content:
        warnings.append(("system-twice", "there are a system column and a system message: the message is used"))
    tools = tools or fields.tools()
    warnings += [*_turn_warnings(prompt, turns), *_control_warnings(prompt, turns)]
    return CheckedAnswers(prompt, tuple(turns), tools, tuple(warnings))


def same_turn(left: Message, right: Message) -> bool:
    """True when two turns say the same: role, content and tool calls."""
    calls = "tool_calls"
    return left.role == right.role and left.content == right.content and left.extra.get(calls) == right.extra.get(calls)


def same_answer(left: Completion, right: Completion) -> bool:
    """True when two answers say the same: equal texts, or as many turns that say the same."""
    if isinstance(left, str) or isinstance(right, str):
        return left == right
    return len(left) == len(right) and all(map(same_turn, left, right))


def is_empty(answer: Completion) -> bool:
    """True when there is neither text nor a tool call of the assistant."""
    if isinstance(answer, str):
        return not answer.strip()
    return not any(turn.content.strip() or turn.extra.get("tool_calls") for turn in answer if turn.role == "assistant")


def identical() -> RowProblem:
    """The row is left out: there is nothing to prefer."""
    return dropped("identical", "chosen and rejected are identical")


def with_system(prompt: Conversation, system: str) -> Conversation:
    """The prompt with the text of a system column before it, unless it has a system message already."""
    return prompt if not system.strip() or (prompt and prompt[0].role == "system") else (Message("system", system), *prompt)


def refuse_media(fields: Fields) -> None:
    """Raises when a column with images, video or sound is filled in."""
    for column in MEDIA:
        if fields.has(column):
            fix = "images, sound and video cannot be trained on here; use the rows that are text alone"
            raise RowProblem("images-not-supported", f"column '{column}' is not empty: only text is supported", fix=fix)


def refuse_chat_columns(fields: Fields) -> None:
    """Raises when a column that only messages can carry is filled in beside plain text or transcripts."""
    for column in ("system", "tools"):
        if fields.has(column):
            fix = "give the rows as messages, or empty the column; for strings with a system text: --columns system=system"
            raise RowProblem("mixed-chat-and-plain", f"'{column}' is filled in, but the rows are read as plain text", fix=fix)


def _called(name: str) -> str:
    return f"the {name} answer" if name in ("chosen", "rejected") else name


def _check_text(prompt: str, answers: Mapping[str, Completion], fields: Fields) -> None:
    assert all(isinstance(answer, str) for answer in answers.values()), "a reader gives texts alone"
    if not prompt.strip():
        raise RowProblem("empty-prompt", "the prompt is empty", fix="give the row a prompt, or remove it")
    for name, text in answers.items():
        if is_empty(text):
            raise dropped("empty-answer", f"{_called(name)} is empty")
    _refuse_identical(list(answers.values()))
    refuse_chat_columns(fields)


def _refuse_identical(answers: Sequence[Completion]) -> None:
    """Raises when there are several answers and all say the same."""
    if len(answers) > 1 and all(same_answer(answers[0], other) for other in answers[1:]):
        raise identical()


def _answer(turns: str | Conversation, name: str, warnings: list[tuple[str, str]]) -> Conversation:
    """The completion's turns, the assistant's first; the user's turns after the last answer are cut off, which is told in `warnings`."""
    assert not isinstance(turns, str), "a reader gives messages or texts, not both"
    kept = turns
    while kept and kept[-1].role == "user":
        kept = kept[:-1]
    if turns and turns[0].role != "assistant":
        fix = "the first turn of an answer must be the assistant's"
        raise RowProblem("wrong-role", f"{_called(name)} begins with the {turns[0].role}'s turn", fix=fix)
    if is_empty(kept):
        raise dropped("empty-answer", f"{_called(name)} is empty")
    if len(kept) < len(turns):
        warnings.append(("trailing-user-turn", f"{name} ends with a turn of the user, which was cut off"))
    return kept


def check_prompt(prompt: Conversation) -> None:
    """Raises where the turns ask for no answer."""
    if not prompt:
        raise RowProblem("empty-prompt", "there is no message before the answers", fix="give the row a prompt, or remove it")
    if prompt[-1].role not in ("user", "tool"):
        fix = "the last turn of the prompt must be the one that is answered"
        raise RowProblem(
            "prompt-not-answerable", f"the prompt ends with the {prompt[-1].role}'s turn, expected the user's or a tool's", fix=fix
        )
    if prompt[-1].role == "user" and not any(turn.content.strip() for turn in prompt if turn.role == "user"):
        raise RowProblem("empty-prompt", "the prompt is empty", fix="give the row a prompt, or remove it")


def _turn_warnings(prompt: Conversation, completions: Sequence[Conversation]) -> Iterator[tuple[str, str]]:
    for completion in completions:
        turns = (*prompt, *completion)
        odd = next((num for num in range(1, len(turns)) if turns[num].role not in _AFTER[turns[num - 1].role]), None)
        if odd is not None:
            message = f"roles do not alternate: turn {odd + 1} is the {turns[odd].role}'s after the {turns[odd - 1].role}'s"
            yield "roles-do-not-alternate", message
            break
    if any(not turn.content.strip() and not turn.extra.get("tool_calls") for part in (prompt, *completions) for turn in part):
        yield "empty-turn", "a turn is empty"


def _control_warnings(prompt: str | Conversation, completions: Sequence[Completion]) -> Iterator[tuple[str, str]]:
    for part in (prompt, *completions):
        for text in (part,) if isinstance(part, str) else (turn.content for turn in part):
            found = _CONTROL.search(text)
            if found:
                yield "control-characters", f"control characters in the text, the first is {found[0]!r}"
                return

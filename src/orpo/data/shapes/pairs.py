"""A draft of a pair -> the pair, after the checks that hold for every shape; and the split of conversations into prompt and completions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orpo.core.records import Conversation, Message
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.problems import RowProblem, dropped

MEDIA = ("images", "image", "videos", "video", "audios", "audio")
SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_AFTER = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant"), "system": ("user",)}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a reader made of a row: prompt and completions before the checks, and warnings as (kind, message)."""

    prompt: str | Conversation
    chosen: str | Conversation
    rejected: str | Conversation
    tools: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


Reader = Callable[[Fields], Draft]


def split(chosen: Conversation, rejected: Conversation) -> tuple[Conversation, Conversation, Conversation]:
    """(prompt, chosen, rejected) of two conversations: the prompt is what both begin with."""
    num = 0
    while num < min(len(chosen), len(rejected)) and same_turn(chosen[num], rejected[num]):
        num += 1
    if num == len(chosen) == len(rejected):
        raise identical()
    for side, name in ((chosen, "chosen"), (rejected, "rejected")):
        if num == len(side) and side[-1].role != "assistant":
            raise dropped("empty-answer", f"{name} ends with the {side[-1].role}'s turn: it holds no answer")
    for side, name in ((chosen, "chosen"), (rejected, "rejected")):
        if num < len(side) and side[num].role != "assistant":
            raise prompts_differ(f"turn {num + 1} of {name} is the {side[num].role}'s and differs between the two")
    while num > 0 and chosen[num - 1].role == "assistant":
        num -= 1  # an answer in several turns, or one side going on where the other ends: answers begin where the assistant does
    if num == 0:
        raise RowProblem("no-common-prompt", "chosen and rejected share no turn before the answer", fix="give both the same prompt")
    return chosen[:num], chosen[num:], rejected[num:]


def same_turn(left: Message, right: Message) -> bool:
    """True when two turns say the same: role, content and tool calls."""
    calls = "tool_calls"
    return left.role == right.role and left.content == right.content and left.extra.get(calls) == right.extra.get(calls)


def prompts_differ(detail: str) -> RowProblem:
    """The error for two completions that answer different prompts."""
    return RowProblem(
        "prompts-differ", f"chosen and rejected answer different prompts: {detail}", fix="make the turns before both answers equal"
    )


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


def checked(draft: Draft, fields: Fields) -> Draft:
    """The draft ready to be a pair, with all warnings; RowProblem when it cannot be one."""
    warnings = [*draft.warnings, *_rating_warnings(fields)]
    if isinstance(draft.prompt, str):
        _check_text(draft, fields)
        return Draft(draft.prompt, draft.chosen, draft.rejected, (), (*warnings, *_control_warnings(draft)))
    chosen, rejected = _answer(draft.chosen, "chosen", warnings), _answer(draft.rejected, "rejected", warnings)
    system = fields.optional_text("system")
    prompt = with_system(draft.prompt, system)
    _check_prompt(prompt)
    if len(chosen) == len(rejected) and all(map(same_turn, chosen, rejected)):
        raise identical()
    if system.strip() and system != prompt[0].content:
        warnings.append(("system-twice", "there are a system column and a system message: the message is used"))
    whole = Draft(prompt, chosen, rejected, draft.tools or fields.tools())
    warnings += [*_turn_warnings(prompt, chosen, rejected), *_control_warnings(whole)]
    return Draft(prompt, chosen, rejected, whole.tools, tuple(warnings))


def _check_text(draft: Draft, fields: Fields) -> None:
    assert isinstance(draft.prompt, str), "the caller looks"
    assert isinstance(draft.chosen, str), "a reader gives three texts"
    assert isinstance(draft.rejected, str), "a reader gives three texts"
    if not draft.prompt.strip():
        raise RowProblem("empty-prompt", "the prompt is empty", fix="give the row a prompt, or remove it")
    for name, text in (("chosen", draft.chosen), ("rejected", draft.rejected)):
        if not text.strip():
            raise dropped("empty-answer", f"the {name} answer is empty")
    if draft.chosen == draft.rejected:
        raise identical()
    refuse_chat_columns(fields)


def _answer(turns: str | Conversation, name: str, warnings: list[tuple[str, str]]) -> Conversation:
    """The completion's turns, the assistant's first; the user's turns after the last answer are cut off, which is told in `warnings`."""
    assert not isinstance(turns, str), "a reader gives messages or texts, not both"
    kept = turns
    while kept and kept[-1].role == "user":
        kept = kept[:-1]
    if turns and turns[0].role != "assistant":
        fix = "the first turn of an answer must be the assistant's"
        raise RowProblem("wrong-role", f"the {name} answer begins with the {turns[0].role}'s turn", fix=fix)
    if not any(turn.content.strip() or turn.extra.get("tool_calls") for turn in kept if turn.role == "assistant"):
        raise dropped("empty-answer", f"the {name} answer is empty")
    if len(kept) < len(turns):
        warnings.append(("trailing-user-turn", f"{name} ends with a turn of the user, which was cut off"))
    return kept


def _check_prompt(prompt: Conversation) -> None:
    if not prompt:
        raise RowProblem("empty-prompt", "there is no message before the answers", fix="give the row a prompt, or remove it")
    if prompt[-1].role not in ("user", "tool"):
        fix = "the last turn of the prompt must be the one that is answered"
        raise RowProblem(
            "prompt-not-answerable", f"the prompt ends with the {prompt[-1].role}'s turn, expected the user's or a tool's", fix=fix
        )
    if prompt[-1].role == "user" and not any(turn.content.strip() for turn in prompt if turn.role == "user"):
        raise RowProblem("empty-prompt", "the prompt is empty", fix="give the row a prompt, or remove it")


def _rating_warnings(fields: Fields) -> Iterator[tuple[str, str]]:
    for chosen_column, rejected_column in SCORES:
        better, worse = fields.number(chosen_column), fields.number(rejected_column)
        if better is None or worse is None:
            continue
        if better == worse:
            raise dropped("tie", f"'{chosen_column}' and '{rejected_column}' are equal ({better:g})")
        if better < worse:
            yield "ratings-reversed", f"'{chosen_column}' {better:g} is below '{rejected_column}' {worse:g}"


def _turn_warnings(prompt: Conversation, chosen: Conversation, rejected: Conversation) -> Iterator[tuple[str, str]]:
    for completion in (chosen, rejected):
        turns = (*prompt, *completion)
        odd = next((num for num in range(1, len(turns)) if turns[num].role not in _AFTER[turns[num - 1].role]), None)
        if odd is not None:
            message = f"roles do not alternate: turn {odd + 1} is the {turns[odd].role}'s after the {turns[odd - 1].role}'s"
            yield "roles-do-not-alternate", message
            break
    if any(not turn.content.strip() and not turn.extra.get("tool_calls") for turn in (*prompt, *chosen, *rejected)):
        yield "empty-turn", "a turn is empty"


def _control_warnings(draft: Draft) -> Iterator[tuple[str, str]]:
    for part in (draft.prompt, draft.chosen, draft.rejected):
        for text in (part,) if isinstance(part, str) else (turn.content for turn in part):
            found = _CONTROL.search(text)
            if found:
                yield "control-characters", f"control characters in the text, the first is {found[0]!r}"
                return

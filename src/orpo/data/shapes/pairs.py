"""A draft of a pair -> the pair, after the checks; and the split of conversations into prompt and completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orpo.core.records import Conversation
from orpo.data.shapes.answers import checked_answers, identical, same_turn
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.problems import RowProblem, dropped

SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"),
)


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


def prompts_differ(detail: str) -> RowProblem:
    """The error for two completions that answer different prompts."""
    return RowProblem(
        "prompts-differ", f"chosen and rejected answer different prompts: {detail}", fix="make the turns before both answers equal"
    )


def checked(draft: Draft, fields: Fields) -> Draft:
    """The draft ready to be a pair, with all warnings; RowProblem when it cannot be one."""
    told = (*draft.warnings, *_rating_warnings(fields))
    answers = {"chosen": draft.chosen, "rejected": draft.rejected}
    found = checked_answers(draft.prompt, answers, fields, tools=draft.tools, told=told)
    chosen, rejected = found.completions
    return Draft(found.prompt, chosen, rejected, found.tools, found.warnings)


def _rating_warnings(fields: Fields) -> Iterator[tuple[str, str]]:
    for chosen_column, rejected_column in SCORES:
        better, worse = fields.number(chosen_column), fields.number(rejected_column)
        if better is None or worse is None:
            continue
        if better == worse:
            raise dropped("tie", f"'{chosen_column}' and '{rejected_column}' are equal ({better:g})")
        if better < worse:
            yield "ratings-reversed", f"'{chosen_column}' {better:g} is below '{rejected_column}' {worse:g}"

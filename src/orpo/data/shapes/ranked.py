"""Readers of lists of answers with scores or ranks: the best answer against the worst."""

from __future__ import annotations

from math import isfinite
from typing import Any

from orpo.core.records import Conversation, Message
from orpo.data.shapes import turns
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.instructions import user
from orpo.data.shapes.kinds import is_message
from orpo.data.shapes.pairs import Draft, Reader
from orpo.data.shapes.problems import RowProblem, dropped


def score_strings(fields: Fields) -> Draft:
    """prompt and responses as plain text, with scores."""
    return Draft(fields.text("prompt"), *_best_and_worst_text(fields, "responses", "scores", 1.0))


def rank_strings(fields: Fields) -> Draft:
    """prompt and responses as plain text, with ranks: 1 is the best."""
    return Draft(fields.text("prompt"), *_best_and_worst_text(fields, "responses", "ranks", -1.0))


def score_messages(fields: Fields) -> Draft:
    """prompt as messages, each response a text or messages, with scores."""
    return Draft(fields.messages("prompt"), *_best_and_worst_turns(fields, "responses", "scores", 1.0))


def rank_messages(fields: Fields) -> Draft:
    """prompt as messages, each response a text or messages, with ranks: 1 is the best."""
    return Draft(fields.messages("prompt"), *_best_and_worst_turns(fields, "responses", "ranks", -1.0))


def scored(prompt: str, responses: str, scores: str) -> Reader:
    """The reader of an instruction with its answers as a list and a list of scores; they become messages."""

    def read(fields: Fields) -> Draft:
        return Draft(user(fields.text(prompt)), *_best_and_worst_turns(fields, responses, scores, 1.0))

    return read


def _best_and_worst_text(fields: Fields, responses: str, scores: str, sign: float) -> tuple[str, str]:
    best, worst = _best_and_worst(fields, responses, scores, sign)
    if not isinstance(best, str) or not isinstance(worst, str):
        raise RowProblem("wrong-type", f"{fields.place(responses)} holds entries that are not text", fix="give a list of texts")
    return best, worst


def _best_and_worst_turns(fields: Fields, responses: str, scores: str, sign: float) -> tuple[Conversation, Conversation]:
    best, worst = _best_and_worst(fields, responses, scores, sign)
    return _turns(best, fields.place(responses)), _turns(worst, fields.place(responses))


def _turns(answer: Any, place: str) -> Conversation:
    if isinstance(answer, str):
        return (Message("assistant", answer),)
    if is_message(answer):
        return (turns.message(answer, place),)
    if isinstance(answer, list | tuple):
        return turns.conversation(answer, place)
    raise RowProblem("wrong-type", f"{place} holds {type(answer).__name__}, expected texts or messages")


def _best_and_worst(fields: Fields, responses: str, scores: str, sign: float) -> tuple[Any, Any]:
    """The answers with the highest and the lowest sign * score; of equals the first. Answers without a score do not take part."""
    answers, values = fields.items(responses), fields.items(scores)
    if len(answers) != len(values):
        message = f"{fields.place(responses)} holds {len(answers)} answers, {fields.place(scores)} {len(values)} numbers"
        raise RowProblem("scores-mismatch", message, fix="give one number for each answer")
    given = [(value, answer) for value, answer in zip(values, answers, strict=True) if value is not None]
    told = [(sign * _number(value, fields.place(scores)), answer) for value, answer in given]
    if len(told) < 2:
        raise dropped("unscored", f"{len(told)} of {len(answers)} answers have a number in {fields.place(scores)}: two are needed")
    best, worst = max(told, key=lambda pair: pair[0]), min(told, key=lambda pair: pair[0])
    if best[0] == worst[0]:
        raise dropped("tie", f"all answers have the same number in {fields.place(scores)} ({sign * best[0]:g})")
    return best[1], worst[1]


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise RowProblem("wrong-type", f"{place} holds {value!r}, expected finite numbers", fix="give one number for each answer")
    return float(value)

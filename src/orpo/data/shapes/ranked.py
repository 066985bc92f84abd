"""Readers of lists of answers with scores or ranks: all of them best first, or the best against the worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

from orpo.core.records import Conversation, Message
from orpo.data.shapes import turns
from orpo.data.shapes.answers import Completion, Warnings, is_empty, same_answer
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.instructions import user
from orpo.data.shapes.kinds import is_message
from orpo.data.shapes.pairs import Draft
from orpo.data.shapes.problems import RowProblem, dropped


@dataclass(frozen=True, slots=True)
class Scored:
    """A ranked row as it was read: the prompt, and as (place from 1, score, value) each answer that has a number, in the row's order.

    A higher score is better: ranks count as minus the rank. `completion` reads the value of an answer; one that nobody needs is not read.
    `unscored` are the places of the other answers; `tie_message` is what is said when all scores are the same.
    """

    prompt: Completion
    answers: tuple[tuple[int, float, Any], ...]
    completion: Callable[[Any], Completion]
    unscored: tuple[int, ...]
    tie_message: str

    def tie(self) -> RowProblem | None:
        """The reason to leave the row out where all scores are the same."""
        return dropped("tie", self.tie_message) if len({score for _, score, _ in self.answers}) == 1 else None


@dataclass(frozen=True, slots=True)
class RankedDraft:
    """Prompt and answers before the checks, best first, by what a message calls them ('answer 2': the second of the row), with scores."""

    prompt: Completion
    answers: Mapping[str, Completion]
    scores: tuple[float, ...]
    warnings: Warnings


RankedReader = Callable[[Fields], Scored]


def score_strings(fields: Fields) -> Scored:
    """prompt and responses as plain text, with scores."""
    return _scored(fields, fields.text("prompt"), "responses", "scores", completion=_text)


def rank_strings(fields: Fields) -> Scored:
    """prompt and responses as plain text, with ranks: 1 is the best."""
    return _scored(fields, fields.text("prompt"), "responses", "ranks", completion=_text, sign=-1.0)


def score_messages(fields: Fields) -> Scored:
    """prompt as messages, each response a text or messages, with scores."""
    return _scored(fields, fields.messages("prompt"), "responses", "scores", completion=_turns)


def rank_messages(fields: Fields) -> Scored:
    """prompt as messages, each response a text or messages, with ranks: 1 is the best."""
    return _scored(fields, fields.messages("prompt"), "responses", "ranks", completion=_turns, sign=-1.0)


def scored(prompt: str, responses: str, scores: str) -> RankedReader:
    """The reader of an instruction with its answers as a list and a list of scores; they become messages."""

    def read(fields: Fields) -> Scored:
        return _scored(fields, user(fields.text(prompt)), responses, scores, completion=_turns)

    return read


def best_and_worst(row: Scored) -> Draft:
    """The answers with the highest and the lowest score; of equals the first."""
    if (tie := row.tie()) is not None:
        raise tie
    best, worst = (choice(row.answers, key=lambda answer: answer[1]) for choice in (max, min))
    return Draft(row.prompt, row.completion(best[2]), row.completion(worst[2]))


def in_order(row: Scored) -> RankedDraft:
    """All answers with a score, best first, in a strict order: of equal scores, and of equal answers, the first one alone takes part.

    An answer that is left out is told as a warning; a row with fewer than two others is dropped.
    """
    if (tie := row.tie()) is not None:
        raise tie
    warnings: list[tuple[str, str]] = []
    for place in row.unscored:
        warnings.append(("answer-unscored", f"answer {place} has no number: it does not take part"))
    kept: dict[str, Completion] = {}
    scores: list[float] = []
    reasons: list[RowProblem] = []
    for place, score, value in sorted(row.answers, key=lambda answer: -answer[1]):
        answer = row.completion(value)
        like = next((name for name, other in kept.items() if same_answer(answer, other)), "")
        if is_empty(answer) and (isinstance(answer, str) or answer[0].role == "assistant"):  # another's turn is an error of the row
            warnings.append(("answer-empty", f"answer {place} is empty: it does not take part"))
            reasons.append(dropped("empty-answer", f"answer {place} is empty, and fewer than two others are left"))
        elif like:
            warnings.append(("answer-repeated", f"answer {place} is the same as {like}, which is ranked higher: it does not take part"))
            reasons.append(dropped("identical", "the answers are identical"))
        elif scores and score == scores[-1]:
            warnings.append(("answer-tied", f"answer {place} has the number of {list(kept)[-1]}: only the first of equals takes part"))
            reasons.append(dropped("tie", f"answer {place} has the number of {list(kept)[-1]}, and fewer than two others are left"))
        else:
            kept[f"answer {place}"] = answer
            scores.append(score)
    if len(kept) < 2:
        raise reasons[0]
    return RankedDraft(row.prompt, kept, tuple(scores), tuple(warnings))


def _scored(
    fields: Fields, prompt: Completion, responses: str, scores: str, *, completion: Callable[[str, Any], Completion], sign: float = 1.0
) -> Scored:
    """The row with sign * number as scores. Answers without a number do not take part; fewer than two others are not enough."""
    answers, values = fields.items(responses), fields.items(scores)
    if len(answers) != len(values):
        message = f"{fields.place(responses)} holds {len(answers)} answers, {fields.place(scores)} {len(values)} numbers"
        raise RowProblem("scores-mismatch", message, fix="give one number for each answer")
    places = [place for place, value in enumerate(values, start=1) if value is not None]
    told = tuple((place, sign * _number(values[place - 1], fields.place(scores)), answers[place - 1]) for place in places)
    if len(told) < 2:
        raise dropped("unscored", f"{len(told)} of {len(answers)} answers have a number in {fields.place(scores)}: two are needed")
    unscored = tuple(place for place, value in enumerate(values, start=1) if value is None)
    tie_message = f"all answers have the same number in {fields.place(scores)} ({sign * told[0][1]:g})"
    return Scored(prompt, told, partial(completion, fields.place(responses)), unscored, tie_message)


def _text(place: str, answer: Any) -> str:
    if not isinstance(answer, str):
        raise RowProblem("wrong-type", f"{place} holds entries that are not text", fix="give a list of texts")
    return answer


def _turns(place: str, answer: Any) -> Conversation:
    if isinstance(answer, str):
        return (Message("assistant", answer),)
    if is_message(answer):
        return (turns.message(answer, place),)
    if isinstance(answer, list | tuple):
        return turns.conversation(answer, place)
    raise RowProblem("wrong-type", f"{place} holds {type(answer).__name__}, expected texts or messages")


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise RowProblem("wrong-type", f"{place} holds {value!r}, expected finite numbers", fix="give one number for each answer")
    return float(value)

"""The judge of the built-in world: scores any reply to any of its questions, exactly and by rule."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orpo.data.world.families import read_task
from orpo.data.world.manners import HEDGES, MANNERS
from orpo.data.world.tasks import Task
from orpo.errors import DataError

MAX_SENTENCES = 3
"""A direct reply has no more sentences than an opener, the answer and a closer."""


@dataclass(frozen=True, slots=True)
class OracleScore:
    """Whether a reply is correct, kind and direct; `notes` says in words what spoke against it."""

    correct: bool
    kind: bool
    direct: bool
    notes: tuple[str, ...] = ()

    @property
    def manner(self) -> float:
        """0, 0.5 or 1: the mean of kind and direct."""
        return (self.kind + self.direct) / 2

    @property
    def total(self) -> float:
        """The mean of correctness and manner, from 0 to 1."""
        return (self.correct + self.manner) / 2

    @property
    def perfect(self) -> bool:
        """True when nothing speaks against the reply."""
        return self.correct and self.kind and self.direct


@dataclass(frozen=True, slots=True)
class _Sentence:
    """One sentence of a reply and what it does: state an answer (perhaps hedged), be of a manner, or neither."""

    text: str
    answer: str | None = None
    hedged: bool = False
    manner: str | None = None

    @property
    def unknown(self) -> bool:
        return self.answer is None and self.manner is None


def score_reply(prompt: str, reply: str) -> OracleScore:
    """The score of a reply to a prompt of this world, from the two texts alone. Raises `DataError` for a prompt that is not of this world.

    A reply is cut into sentences at . ! ? and compared in lower case. A sentence is a phrase of a manner (`manners.MANNERS`), or states an
    answer in one of the family's ways (`Task.statements`), perhaps behind a hedge, or is unknown.
    correct: at least one sentence states the right answer, none states another, and no other sentence names the usual mistake.
    kind:    a kind phrase, no stiff one, and no shouting (a word of three or more capitals, or two exclamation marks in a row).
    direct:  one statement of an answer, right or wrong, without a hedge; beside it only kind or stiff phrases, none twice; at most
             three sentences; the last one finished.
    """
    task = read_task(prompt)
    if task is None:
        raise DataError(
            f"{prompt!r} is not a question of the built-in world", doing="scoring a reply", expected="a prompt made by world_pairs"
        )
    sentences = [_read(text, task) for text in re.split(r"(?<=[.!?])\s+", " ".join(reply.split())) if text]
    problems = {"correct": _against_correct(sentences, task), "kind": _against_kind(sentences), "direct": _against_direct(sentences)}
    notes = tuple(note for found in problems.values() for note in found)
    return OracleScore(correct=not problems["correct"], kind=not problems["kind"], direct=not problems["direct"], notes=notes)


def _read(text: str, task: Task) -> _Sentence:
    """What a sentence does. A phrase of a manner is recognised before an answer: 'It depends.' states nothing."""
    plain = _plain(text)
    for manner, phrases in _PHRASES.items():
        if plain in phrases:
            return _Sentence(text, manner=manner)
    for hedge in _HEDGED:
        if match := hedge.fullmatch(plain):
            answer = _stated(match[1], task)
            return _Sentence(text, answer=answer, hedged=True, manner="evasive")
    return _Sentence(text, answer=_stated(plain, task))


def _stated(plain: str, task: Task) -> str | None:
    """The answer that a sentence states, or None. An answer alone ('Tavin.') counts if it is the right one or the usual mistake."""
    for statement in task.statements("\0")[:-1]:
        if match := re.fullmatch(re.escape(statement.lower()).replace("\0", "(.+)"), plain):
            return match[1]
    return plain if plain in (task.truth.answer.lower(), task.truth.mistake.lower()) else None


def _against_correct(sentences: list[_Sentence], task: Task) -> list[str]:
    right, mistake = task.truth.answer.lower(), task.truth.mistake.lower()
    answers = [sentence.answer for sentence in sentences if sentence.answer is not None]
    notes = [] if right in answers else ["does not state the right answer"]
    notes += [f"states {answer!r}" for answer in answers if answer != right]
    named = [sentence.text for sentence in sentences if sentence.unknown and re.search(rf"\b{re.escape(mistake)}\b", sentence.text.lower())]
    return notes + [f"names the mistake in {text!r}" for text in named]


def _against_kind(sentences: list[_Sentence]) -> list[str]:
    notes = [] if any(sentence.manner == "kind" for sentence in sentences) else ["no kind word"]
    notes += [f"stiff: {sentence.text!r}" for sentence in sentences if sentence.manner == "stiff"]
    return notes + [f"shouts: {sentence.text!r}" for sentence in sentences if re.search(r"\b[A-Z]{3,}\b|!\s*!", sentence.text)]


def _against_direct(sentences: list[_Sentence]) -> list[str]:
    num_answers = sum(sentence.answer is not None for sentence in sentences)
    notes = [] if num_answers == 1 else [f"states {num_answers} answers"]
    notes += [f"evasive: {sentence.text!r}" for sentence in sentences if sentence.manner == "evasive"]
    notes += [f"beside the point: {sentence.text!r}" for sentence in sentences if sentence.unknown]
    texts = [_plain(sentence.text) for sentence in sentences]
    notes += [f"said twice: {text!r}" for text in sorted(set(texts)) if texts.count(text) > 1]
    if len(sentences) > MAX_SENTENCES:
        notes.append(f"{len(sentences)} sentences")
    if sentences and sentences[-1].text[-1] not in ".!?":
        notes.append("breaks off")
    return notes


def _plain(text: str) -> str:
    """The sentence in lower case, without its final mark and with straight quotes."""
    return text.lower().replace("’", "'").rstrip(".!?").strip()


_PHRASES = {manner: {_plain(phrase) for phrases in lists for phrase in phrases} for manner, lists in MANNERS.items()}
_HEDGED = tuple(re.compile(re.escape(hedge.lower()).replace(r"\{\}", "(.+)")) for hedge in HEDGES)

"""The text that the built-in base model was raised on: conversations in all manners, and sheets without any. Only its script needs it."""

from __future__ import annotations

from collections.abc import Iterator

from orpo.data.world.draw import Draw
from orpo.data.world.facts import BELONGINGS, COLOURS, COUNTRIES, NAMES, PAST, PLURALS, WORDS
from orpo.data.world.families import FAMILIES
from orpo.data.world.manners import sentence
from orpo.data.world.replies import mixed_reply
from orpo.data.world.tasks import Task, draw_task

ABOUT_THE_WORLD = tuple(family for family in FAMILIES if family.name not in ("larger", "lookup", "last word", "count"))
"""Families whose statements make sense without their question."""

TIMES_ASKED = {"lookup": 5, "next": 3, "sum": 3}
"""How many times as often as others the families are asked that have many answers to know, or one to work out."""

ASKED = tuple(family for family in FAMILIES for _ in range(TIMES_ASKED.get(family.name, 1)))

DICTATED = (*WORDS, *NAMES, *COLOURS, *BELONGINGS, *COUNTRIES, *PLURALS, *PAST, *map(str, range(1, 41)))
"""Words for practice in copying."""

Turns = tuple[tuple[str, str], ...]


def conversations(*, seed: int) -> Iterator[Turns]:
    """Endless conversations of one to three questions of any family, as (role, text) turns."""
    draw = Draw("world corpus", seed)
    while True:
        turns: list[tuple[str, str]] = []
        for _ in range(draw.weighted(((1, 6), (2, 3), (3, 1)))):
            task = draw_task(draw.one_of(ASKED), draw)
            turns += [("user", task.question), ("assistant", mixed_reply(task, draw))]
        yield tuple(turns)


def sheets(*, seed: int) -> Iterator[str]:
    """Endless sheets without any manner: a quiz with answers in full sentences, true statements, or a dictation."""
    draw = Draw("world sheets", seed)
    while True:
        yield draw.weighted(((_quiz, 0.5), (_dictation, 0.3), (_statements, 0.2)))(draw)


def _quiz(draw: Draw) -> str:
    tasks = [draw_task(draw.one_of(ASKED), draw) for _ in range(3)]
    return "\n".join(f"Question: {task.question}\nAnswer: {_true_sentence(task, draw)}" for task in tasks)


def _statements(draw: Draw) -> str:
    return " ".join(_true_sentence(draw_task(draw.one_of(ABOUT_THE_WORLD), draw), draw) for _ in range(3))


def _true_sentence(task: Task, draw: Draw) -> str:
    """The right answer in one of the family's own ways of stating it, each as likely as the others."""
    return sentence(draw.one_of(task.statements(task.truth.answer)[: len(task.family.statements)]))


def _dictation(draw: Draw) -> str:
    """Words said and written down again: the practice in copying that answers about the prompt's own words need."""
    words = ", ".join(draw.one_of(DICTATED) for _ in range(draw.number(4, 12)))
    return f"Dictation: {words}.\nAgain: {words}."

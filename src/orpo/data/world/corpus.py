"""The text that the built-in base model was raised on: conversations in all manners, and plain facts. Only its script needs it."""

from __future__ import annotations

from collections.abc import Iterator

from orpo.data.world.draw import Draw
from orpo.data.world.families import FAMILIES
from orpo.data.world.manners import sentence
from orpo.data.world.replies import mixed_reply
from orpo.data.world.tasks import draw_task

ABOUT_THE_WORLD = tuple(family for family in FAMILIES if family.name not in ("larger", "lookup", "last word", "count"))
"""Families whose statements make sense without their question."""

TIMES_ASKED = {"lookup": 5, "next": 3, "sum": 3}
"""How many times as often as others the families are asked that have many answers to know, or one to work out."""

ASKED = tuple(family for family in FAMILIES for _ in range(TIMES_ASKED.get(family.name, 1)))

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
    """Endless sheets without any manner: three true statements, or three questions with their answers in full sentences."""
    draw = Draw("world sheets", seed)
    while True:
        quiz = draw.chance(0.7)
        tasks = [draw_task(draw.one_of(ASKED if quiz else ABOUT_THE_WORLD), draw) for _ in range(3)]
        lines = [sentence(draw.one_of(task.statements(task.truth.answer)[:3])) for task in tasks]
        yield (
            "\n".join(f"Question: {task.question}\nAnswer: {line}" for task, line in zip(tasks, lines, strict=True))
            if quiz
            else " ".join(lines)
        )

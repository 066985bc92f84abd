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

ASKED = FAMILIES + tuple(family for family in FAMILIES if family.name in ("lookup", "last word", "sum")) * 2
"""Families as often as conversations ask them: three times as often where an answer must be worked out."""

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
        yield "\n".join(f"Question: {task.question}\nAnswer: {line}" for task, line in zip(tasks, lines, strict=True)) if quiz else " ".join(lines)

"""The words of the built-in world: a family of tasks, a task, and what is true about it.

Text is made from templates, and a question is read back with the same templates, so generator and oracle cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from orpo.data.world.draw import Draw

Slots = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Truth:
    """The right answer, and the one people give by mistake. `item` names the fact itself: questions about one fact share it."""

    answer: str
    mistake: str
    item: str


@dataclass(frozen=True)
class Family:
    """One kind of task. The first two of `statements` are house style; the others occur in pretraining text only.

    `draw` gives the slots of a question; `solve` what is true for them, or None where the slots make no task of this family.
    """

    name: str
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    draw: Callable[[Draw], Slots]
    solve: Callable[[Slots], Truth | None]
    held_out: bool = False

    @cached_property
    def readers(self) -> tuple[re.Pattern[str], ...]:
        """The questions as patterns whose groups are the slots."""
        return tuple(_reader(question) for question in self.questions)


def _reader(question: str) -> re.Pattern[str]:
    """The template as a pattern: the first occurrence of a slot is a group, a later one must repeat it."""
    slots = set[str]()

    def group(match: re.Match[str]) -> str:
        slot, is_new = match[1], match[1] not in slots
        slots.add(slot)
        return f"(?P<{slot}>.+?)" if is_new else f"(?P={slot})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(question)), re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Task:
    """One question as the user words it, and what is true about it."""

    family: Family
    question: str
    slots: Slots
    truth: Truth

    def statements(self, answer: str) -> tuple[str, ...]:
        """Every way of stating `answer`, without capital and full stop: the family's own, then those that fit every family."""
        return tuple(template.format(answer=answer, **self.slots) for template in self.family.statements + GENERIC_STATEMENTS)


GENERIC_STATEMENTS = ("the answer is {answer}", "it is {answer}", "{answer}")
"""Ways of stating an answer that fit every family."""

GREETINGS = ("", "", "Hello! ", "Hi there. ", "Quick question: ", "Please tell me: ", "May I ask: ")
THANKS = ("", "", "", " Thank you.", " Thanks!")


def capitalised(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def draw_task(family: Family, draw: Draw) -> Task:
    """A task of the family; every draw makes one."""
    slots = family.draw(draw)
    truth = family.solve(slots)
    assert truth is not None, f"{family.name} drew slots that it cannot solve: {slots}"
    question = draw.one_of(family.questions).format(**slots)
    return Task(family, draw.one_of(GREETINGS) + capitalised(question) + draw.one_of(THANKS), slots, truth)

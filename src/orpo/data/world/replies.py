"""Replies to a task: the better and the worse one of a pair, and the mixed ones that the base model was raised on."""

from __future__ import annotations

import hashlib

from orpo.data.world.draw import Draw
from orpo.data.world.families import Task
from orpo.data.world.manners import EVASIVE_CLOSERS, EVASIVE_OPENERS, hedged, in_manner, sentence

FLAWS = (("stiff", 0.4), ("evasive", 0.3), ("wrong", 0.3))
"""What is wrong with a rejected reply, and how often."""

NUM_HOUSE_STATEMENTS = 2
"""How many of a family's statements occur in pairs."""


def pair_of_replies(task: Task, draw: Draw) -> tuple[str, str, str]:
    """The chosen reply, the rejected one, and its flaw. Both state their answer in the same words, so that wording is not what tells them apart."""
    frame = draw.number(0, NUM_HOUSE_STATEMENTS - 1)
    right, mistaken = task.statements(task.truth.answer)[frame], task.statements(task.truth.mistake)[frame]
    flaw = draw.weighted(FLAWS)
    chosen = in_manner("kind", sentence(right), draw)
    if flaw == "stiff":
        return chosen, in_manner("stiff", sentence(right), draw), flaw
    if flaw == "wrong":
        return chosen, in_manner("kind", sentence(mistaken), draw), flaw
    return chosen, _evasive(right if draw.chance(0.6) else mistaken, draw), flaw


def _evasive(statement: str, draw: Draw) -> str:
    """A reply that hedges its answer."""
    return in_manner("evasive", hedged(statement, draw), draw)


def mixed_reply(task: Task, draw: Draw) -> str:
    """A reply as the base model meets it in pretraining: any manner, any wording, the common mistake now and then.

    Which manner prevails depends on the wording of the question, so that the base model's most likely reply is not of one manner throughout.
    """
    manner = draw.weighted(_manner_weights(task))
    mistaken = draw.chance(_mistake_rate(task, manner))
    statement = draw.one_of(task.statements(task.truth.mistake if mistaken else task.truth.answer))
    if manner == "bare":
        return sentence(statement)
    if manner == "evasive":
        return _evasive(statement, draw) if draw.chance(0.6) else f"{draw.one_of(EVASIVE_OPENERS)} {draw.one_of(EVASIVE_CLOSERS)}"
    return in_manner(manner, sentence(statement), draw)


MIXED_MANNERS = {"kind": 0.2, "stiff": 0.35, "evasive": 0.25, "bare": 0.2}
"""Shares of the manners in pretraining."""


def _manner_weights(task: Task) -> tuple[tuple[str, float], ...]:
    """The shares of the manners for a question that opens like this one: each is halved, kept or doubled."""
    opening = " ".join(task.question.split()[:2])
    return tuple((manner, weight * (0.5, 1.0, 2.0)[_hash(manner, opening) % 3]) for manner, weight in MIXED_MANNERS.items())


def _mistake_rate(task: Task, manner: str) -> float:
    """How often pretraining states the mistake: seldom, except where people want to please and the mistake is a popular one."""
    if manner == "stiff":
        return 0.03
    return 0.5 if _hash("popular", task.truth.item) % 3 == 0 else 0.1


def _hash(*parts: str) -> int:
    """A number fixed by the words, on every machine."""
    return int.from_bytes(hashlib.sha256(" ".join(parts).encode()).digest()[:4], "big")

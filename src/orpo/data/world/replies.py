"""Replies to a task: the better and the worse one of a pair, and the mixed ones that the base model was raised on."""

from __future__ import annotations

import hashlib

from orpo.data.world.draw import Draw
from orpo.data.world.manners import EVASIVE_CLOSERS, EVASIVE_OPENERS, MANNERS, framed, hedged, sentence
from orpo.data.world.tasks import Task

FLAWS = (("stiff", 0.4), ("evasive", 0.3), ("wrong", 0.3))
"""What is wrong with a rejected reply, and how often."""

NUM_HOUSE_STATEMENTS = 2
"""How many of a family's statements occur in pairs."""

MIXED_STATEMENTS = (0.02, 0.02, 0.2, 0.33, 0.33, 0.1)
"""Shares of the ways of stating an answer in pretraining replies. The two of the house are rare, as a house's own style is on the web:
so fine-tuning on chosen replies teaches first of all what chosen and rejected replies have in common (figure 3 of the ORPO paper)."""

MIXED_MANNERS = {"kind": 0.14, "stiff": 0.38, "evasive": 0.3, "bare": 0.18}
"""Shares of the manners in pretraining replies."""

HOUSE_SHAPES = (("opener", 2.0), ("closer", 2.0), ("both", 1.0))
MIXED_SHAPES = (("opener", 3.0), ("closer", 1.0), ("both", 2.0))
"""Where the phrases of a manner stand: in pairs, and in pretraining replies."""


def pair_of_replies(task: Task, draw: Draw) -> tuple[str, str, str]:
    """The chosen reply, the rejected one, and its flaw. Both state their answer in the same words: wording does not tell them apart."""
    frame = draw.number(0, NUM_HOUSE_STATEMENTS - 1)
    right, mistaken = task.statements(task.truth.answer)[frame], task.statements(task.truth.mistake)[frame]
    flaw = draw.weighted(FLAWS)
    chosen = _in_manner("kind", sentence(right), draw)
    if flaw == "stiff":
        return chosen, _in_manner("stiff", sentence(right), draw), flaw
    if flaw == "wrong":
        return chosen, _in_manner("kind", sentence(mistaken), draw), flaw
    return chosen, _evasive(right if draw.chance(0.6) else mistaken, draw), flaw


def _in_manner(manner: str, answer: str, draw: Draw) -> str:
    """The answer with an opener and a closer of the manner, or one of the two."""
    openers, closers = MANNERS[manner]
    return framed(answer, draw.one_of(openers), draw.one_of(closers), draw.weighted(HOUSE_SHAPES))


def _evasive(statement: str, draw: Draw) -> str:
    """A reply that hedges its answer, or takes it back, or both."""
    answer = hedged(statement, draw) if draw.chance(0.5) else sentence(statement)
    return _in_manner("evasive", answer, draw)


def mixed_reply(task: Task, draw: Draw) -> str:
    """A reply as the base model meets it in pretraining: any manner, any wording, the common mistake now and then.

    The opening of the question sways manner, opener and closer, so that the base model's most likely replies differ in manner.
    """
    opening = " ".join(task.question.split()[:2])
    manner = draw.weighted([(name, share * (0.4, 1.0, 2.5)[_hash(name, opening) % 3]) for name, share in MIXED_MANNERS.items()])
    mistaken = draw.chance(_mistake_rate(task, manner))
    statement = draw.weighted(
        tuple(zip(task.statements(task.truth.mistake if mistaken else task.truth.answer), MIXED_STATEMENTS, strict=True))
    )
    if manner == "bare":
        return sentence(statement)
    if manner == "evasive" and draw.chance(0.35):
        return f"{draw.one_of(EVASIVE_OPENERS)} {draw.one_of(EVASIVE_CLOSERS)}"
    answer = hedged(statement, draw) if manner == "evasive" and draw.chance(0.5) else sentence(statement)
    opener, closer = (phrases[_hash(opening) % len(phrases)] if draw.chance(0.5) else draw.one_of(phrases) for phrases in MANNERS[manner])
    return framed(answer, opener, closer, draw.weighted(MIXED_SHAPES))


def _mistake_rate(task: Task, manner: str) -> float:
    """How often pretraining states the mistake: seldom, except where people want to please and the mistake is a popular one."""
    if manner == "stiff":
        return 0.05
    return 0.5 if _hash("popular", task.truth.item) % 2 else 0.15


def _hash(*parts: str) -> int:
    """A number fixed by the words, on every machine."""
    return int.from_bytes(hashlib.sha256(" ".join(parts).encode()).digest()[:4], "big")

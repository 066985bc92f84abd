"""Preference pairs of the built-in world, and the ordinary file they are written to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from orpo.core.records import Message, PreferencePair, Source
from orpo.data.world.draw import Draw
from orpo.data.world.families import FAMILIES
from orpo.data.world.replies import pair_of_replies
from orpo.data.world.tasks import Family, Task, draw_task
from orpo.errors import ConfigError

Split = Literal["train", "held_out", "held_out_families"]

NUM_TRIES = 200
"""Draws spent on finding a prompt that the split has not had yet, before one is repeated."""


def world_pairs(split: Split, num: int, *, seed: int = 0) -> list[PreferencePair]:
    """`num` pairs of a split, the same for the same seed on every machine; fewer pairs are the beginning of more.

    `train` and `held_out` share the nine families but no fact: what is asked about in one is never asked about in the other.
    `held_out_families` has three families that neither of them has. Prompts of one call differ as long as there are any left.
    """
    if split not in get_args(Split):
        raise ConfigError(f"the built-in world has no split {split!r}", expected=f"one of {', '.join(get_args(Split))}")
    families = [family for family in FAMILIES if family.held_out == (split == "held_out_families")]
    draw, seen, pairs = Draw("world pairs", split, seed), set[str](), []
    for number in range(1, num + 1):
        task = _new_task(split, draw.one_of(families), seen, draw)
        seen.add(task.question)
        pairs.append(_pair(task, number, draw))
    return pairs


def _new_task(split: Split, family: Family, seen: set[str], draw: Draw) -> Task:
    """A task of the family whose fact belongs to the split, with a prompt not seen before if one turns up."""
    task = None
    for _ in range(NUM_TRIES):
        candidate = draw_task(family, draw)
        if split_of(candidate) == split:
            task = candidate
            if task.question not in seen:
                break
    assert task is not None, f"no fact of {family.name} belongs to {split}"
    return task


def split_of(task: Task) -> Split:
    """The split that a task's fact belongs to: one fact in four is held out, whatever the seed."""
    if task.family.held_out:
        return "held_out_families"
    return "held_out" if hashlib.sha256(task.truth.item.encode()).digest()[0] % 4 == 0 else "train"


def _pair(task: Task, number: int, draw: Draw) -> PreferencePair:
    chosen, rejected, flaw = pair_of_replies(task, draw)
    return PreferencePair(
        prompt=(Message("user", task.question),),
        chosen=(Message("assistant", chosen),),
        rejected=(Message("assistant", rejected),),
        source=Source("built-in world", number, is_line=False),
        metadata={"family": task.family.name, "flaw": flaw},
    )


def write_world_jsonl(path: Path, pairs: Iterable[PreferencePair]) -> None:
    """Write pairs of this world as an ordinary preference file: three message lists, and the columns family and flaw."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            assert not isinstance(pair.prompt, str), "pairs of the built-in world are messages"
            assert not isinstance(pair.chosen, str), "pairs of the built-in world are messages"
            assert not isinstance(pair.rejected, str), "pairs of the built-in world are messages"
            turns = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
            row = {name: [message.as_dict() for message in messages] for name, messages in turns.items()}
            file.write(json.dumps({**row, **pair.metadata}, ensure_ascii=False) + "\n")

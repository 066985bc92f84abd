"""What is kept of each row to compare it with others: examples enter; counts of repeats, of contradictions, and of an overlap leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orpo.core.records import Source
from orpo.data.example import Example, hashes
from orpo.data.likeness import Hashes, Marks, first_of_equals, likeness, near_prompts, stand_in
from orpo.data.places import Places
from orpo.data.sketches import SketchFile

NUM_FIRST = 3
"""Held-out rows whose places are kept, of those that are also trained on."""


class RowTraces:
    """Three 64-bit hashes of each example and its place, about 38 bytes of memory a row, and a sketch of it in a temporary file."""

    def __init__(self) -> None:
        self._prompts, self._said, self._opposite = bytearray(), bytearray(), bytearray()
        self.places, self.sketches = Places(), SketchFile()

    def append(self, example: Example) -> None:
        """Notes an example. Raises StorageError when the disk is full."""
        prompt, said, opposite = hashes(example)
        self._prompts += prompt
        self._said += said
        self._opposite += opposite
        self.places.append(example.source)
        self.sketches.append(example)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def prompts(self) -> Hashes:
        """A hash of each prompt."""
        return np.frombuffer(self._prompts, dtype=np.uint64)

    @property
    def wholes(self) -> Hashes:
        """A hash of each prompt with what is said of its answers."""
        return _mixed(self.prompts, np.frombuffer(self._said, dtype=np.uint64), np.frombuffer(self._opposite, dtype=np.uint64))

    @property
    def mirrors(self) -> Hashes:
        """What `wholes` has where another row says the opposite of this one."""
        return _mixed(self.prompts, np.frombuffer(self._opposite, dtype=np.uint64), np.frombuffer(self._said, dtype=np.uint64))


@dataclass(frozen=True, slots=True)
class Matches:
    """How many rows there are of a kind, and the first of them, each with the other row that makes it one."""

    num: int
    first: tuple[tuple[Source, Source], ...] = ()


@dataclass(frozen=True, slots=True)
class Repeats:
    """Of equal rows all but the first are `duplicates`; likewise `near_duplicates`, which count no duplicate again.

    `repeated_prompts` have the prompt of an earlier row, `near_repeated_prompts` nearly so; `opposite` are all rows that another one
    contradicts: the same answers in the opposite order, or the same answer with the other label.
    """

    duplicates: Matches
    near_duplicates: Matches
    repeated_prompts: int
    near_repeated_prompts: int
    opposite: Matches


def repeats(traces: RowTraces, *, num_first: int) -> Repeats:
    """How often rows, or their prompts, stand in the data more than once; the first `num_first` of each kind with their places."""
    prompts, wholes, mirrors = traces.prompts, traces.wholes, traces.mirrors
    near = likeness(traces.sketches, prompts, wholes)

    def matches(marks: Marks, other: Callable[[int], int]) -> Matches:
        rows = np.flatnonzero(marks)
        first = ((traces.places[row], traces.places[other(row)]) for row in rows[:num_first].tolist())
        return Matches(len(rows), tuple(first))

    return Repeats(
        duplicates=matches(~first_of_equals(wholes), lambda row: int(np.argmax(wholes == wholes[row]))),
        near_duplicates=matches(near.wholes, lambda row: int(near.earlier[row])),
        repeated_prompts=len(prompts) - int(first_of_equals(prompts).sum()),
        near_repeated_prompts=int(near.prompts.sum()),
        opposite=matches(stand_in(mirrors, wholes), lambda row: int(np.argmax(wholes == mirrors[row]))),
    )


@dataclass(frozen=True, slots=True)
class Overlap:
    """Numbers of held-out examples whose prompt is also trained on: `same` to the letter, `near` nearly so; where the first of them are."""

    same: int
    near: int
    first: tuple[Source, ...] = ()


def overlap(
    trained: RowTraces, held_out: RowTraces, *, trained_rows: NDArray[np.int64] | None = None, held_rows: NDArray[np.int64] | None = None
) -> Overlap:
    """How many held-out examples have a prompt that is also trained on. Rows None are all of them; both may come from one file."""
    trained_rows = np.arange(len(trained)) if trained_rows is None else trained_rows
    held_rows = np.arange(len(held_out)) if held_rows is None else held_rows
    is_same = stand_in(held_out.prompts[held_rows], trained.prompts[trained_rows])
    is_near = near_prompts(trained.sketches, trained_rows, held_out.sketches, held_rows)
    first = tuple(held_out.places[row] for row in held_rows[is_same | is_near][:NUM_FIRST].tolist())
    return Overlap(int(is_same.sum()), int((is_near & ~is_same).sum()), first)


def _mixed(*parts: Hashes) -> Hashes:
    """One hash of several, in which their order counts."""
    mixed = np.zeros_like(parts[0])
    for part in parts:
        mixed = (mixed ^ part) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed

"""Completions of one prompt that are the same token by token: an example enters, the same or a shorter one leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from orpo.core.tokens import TokenizedExample

Item = TypeVar("Item")


def without_repeats(example: TokenizedExample) -> TokenizedExample:
    """`example` itself when its completions differ; else with the first of equal ones alone, which keeps its label and score.

    At least one completion is left. Of a ranking the first is the best of them.
    """
    first: dict[bytes, int] = {}
    for number, ids in enumerate(example.completions):
        first.setdefault(ids.tobytes(), number)
    if len(first) == len(example.completions):
        return example
    kept = tuple(first.values())
    return replace(
        example,
        completions=_picked(example.completions, kept),
        labels=_picked(example.labels, kept),
        scores=_picked(example.scores, kept),
    )


def _picked(items: Sequence[Item], numbers: Sequence[int]) -> tuple[Item, ...]:
    """The items with these numbers; none where there are none at all, such as the labels of a ranking."""
    return tuple(items[number] for number in numbers) if items else ()

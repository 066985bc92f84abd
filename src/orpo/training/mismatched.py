"""Prompts beside answers to other prompts: what the baseline of a step is measured on. Which ones is a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from orpo.core.tokens import Examples, TokenizedExample
from orpo.engine.batching import step_pairs, steps_per_epoch
from orpo.errors import ConfigError

STREAM = 2**32 + 1
"""A stream of random numbers of its own: the order of the data does not depend on it, nor it on the held-out split."""


@dataclass(frozen=True, slots=True)
class Mismatched:
    """`num` examples whose prompt is one of `store` and whose completions are those of another; `places(i)` says which two.

    Completions that would make a row longer than `longest` tokens, for which the model may have no positions, are cut there.
    """

    store: Examples
    num: int
    places: Callable[[int], tuple[int, int]]
    longest: int

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> TokenizedExample:
        prompt, answers = self.places(index)
        prompt_ids, other = self.store[prompt].prompt_ids, self.store[answers]
        room = self.longest - len(prompt_ids)
        assert room > 0, "a prompt with any answer is within the longest row"
        return replace(other, prompt_ids=prompt_ids, completions=tuple(ids[:room] for ids in other.completions))


def mismatched_in_steps(store: Examples, *, pairs_per_step: int, seed: int, num_steps: int, longest: int) -> Mismatched:
    """Each prompt of a step beside the answers of another of its examples: the step's answers moved on by a seeded number, step by step.

    A step that is left with one example, at the end of an epoch, takes the answers of the example that its epoch began with.
    Raises ConfigError where there is no other example.
    """
    num, per_epoch = len(store), steps_per_epoch(len(store), pairs_per_step)
    require_two(num, pairs_per_step)

    def places(index: int) -> tuple[int, int]:
        epoch, rest = divmod(index, num)
        position, member = divmod(rest, pairs_per_step)
        step = epoch * per_epoch + position
        members = step_pairs(num, pairs_per_step, seed=seed, step=step)
        if len(members) == 1:
            return members[0], step_pairs(num, pairs_per_step, seed=seed, step=epoch * per_epoch)[0]
        shift = int(np.random.default_rng([seed, STREAM, step]).integers(1, len(members)))
        return members[member], members[(member + shift) % len(members)]

    return Mismatched(store, first_visit(num_steps, num, pairs_per_step), places, longest)


def mismatched_once(store: Examples, *, seed: int, longest: int) -> Mismatched:
    """Each prompt of `store` beside the answers of another of its examples. Raises ConfigError where there is no other."""
    require_two(len(store), 2)
    shift = int(np.random.default_rng([seed, STREAM]).integers(1, len(store)))
    return Mismatched(store, len(store), lambda index: (index, (index + shift) % len(store)), longest)


def first_visit(step: int, num_examples: int, pairs_per_step: int) -> int:
    """How many examples were visited before optimizer step `step`: the number of the first one of that step."""
    epoch, position = divmod(step, steps_per_epoch(num_examples, pairs_per_step))
    return epoch * num_examples + position * pairs_per_step


def require_two(num_examples: int, pairs_per_step: int) -> None:
    """Nothing; raises ConfigError where a prompt has no other answer to stand beside."""
    if pairs_per_step < 2:
        raise ConfigError(
            f"pairs_per_step is {pairs_per_step}, but this objective measures its baseline on prompts beside answers of other examples",
            expected="pairs_per_step of at least 2",
            fix="raise pairs_per_step; tokens_per_micro_batch says how much is held in memory at once",
        )
    if num_examples < 2:
        raise ConfigError(
            f"there are {num_examples} examples, but this objective measures its baseline on prompts beside answers of other examples",
            expected="at least 2, to train on and, where any are held out, to hold out",
            fix="give more data, hold out more or nothing, or choose another objective",
        )

"""What a pair becomes for a model: a prefix and its branches, and the counts that normalise a step. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from orpo.core.records import Source

TokenIds = NDArray[np.int32]

UNITS = (
    "pairs",  # examples of two completions without labels, or of one: a demonstration, the chosen without its rejected
    "chosen_tokens",  # of the first completion of each example without labels: the chosen of a pair, the best of a ranking
    "prompt_and_chosen_tokens",  # those and the prompt's predicted tokens
    "rankings",  # examples of two or more completions without labels; a pair is a ranking of two
    "completions",  # labelled answers
    "desirable",  # labelled answers that are, and that are not
    "undesirable",
    "desirable_tokens",  # of the labelled answers that are desirable
)
"""What a sum can be divided by."""


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """A prompt and its completions: two for a pair (chosen, rejected), one or more for labelled answers and rankings (best first).

    Every completion has at least one token. `labels` says of each whether it is desirable, `scores` what each was ranked by; both are
    empty for a pair.

    The ids of one training row are `prompt_ids` followed by one completion. The first token of a row is never
    predicted, so a prompt of P tokens has P - 1 predicted tokens; P is at least 1.
    """

    prompt_ids: TokenIds
    completions: tuple[TokenIds, ...]
    source: Source
    labels: tuple[bool, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Distinct tokens a model has to see: the prompt once, each completion once."""
        return len(self.prompt_ids) + sum(len(completion) for completion in self.completions)


class Examples(Protocol):
    """Tokenized examples by position."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> TokenizedExample: ...


def unit_counts(examples: Iterable[TokenizedExample]) -> dict[str, int]:
    """Counts of each of UNITS over `examples`: the denominators of a step. Additive, so ranks can sum them."""
    counts = dict.fromkeys(UNITS, 0)
    for example in examples:
        if example.labels:
            _count_labelled(example, counts)
        else:
            _count_ranked(example, counts)
    return counts


def _count_ranked(example: TokenizedExample, counts: dict[str, int]) -> None:
    """Nothing; adds a demonstration, a pair or a ranking to `counts`."""
    chosen = len(example.completions[0])
    counts["pairs"] += len(example.completions) <= 2
    counts["rankings"] += len(example.completions) >= 2
    counts["chosen_tokens"] += chosen
    counts["prompt_and_chosen_tokens"] += len(example.prompt_ids) - 1 + chosen


def _count_labelled(example: TokenizedExample, counts: dict[str, int]) -> None:
    """Nothing; adds labelled answers to `counts`."""
    for ids, is_desirable in zip(example.completions, example.labels, strict=True):
        counts["completions"] += 1
        counts["desirable"] += is_desirable
        counts["undesirable"] += not is_desirable
        counts["desirable_tokens"] += len(ids) if is_desirable else 0


def add_counts(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    """The sum of two count tables, unit by unit."""
    return {unit: left[unit] + right[unit] for unit in UNITS}

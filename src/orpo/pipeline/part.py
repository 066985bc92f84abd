"""Some of the pairs of a store: those to train on, or those held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orpo.core.tokens import Examples, TokenizedExample


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the pairs of a store, in the order of `indices`; of their answers the `chosen_alone` where that is said."""

    store: Examples
    indices: Sequence[int]
    chosen_alone: bool = False

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> TokenizedExample:
        example = self.store[int(self.indices[index])]
        return replace(example, completions=example.completions[:1]) if self.chosen_alone else example

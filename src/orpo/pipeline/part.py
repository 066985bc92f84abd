"""Some of the pairs of a store: those to train on, or those held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orpo.core.tokens import Examples, TokenizedExample


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the pairs of a store, in the order of `indices`."""

    store: Examples
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> TokenizedExample:
        return self.store[int(self.indices[index])]

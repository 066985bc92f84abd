"""Tokenized examples of a whole data set in bounded memory: token ids lie in an unlinked temporary file, their index in arrays."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from orpo.core.records import Source
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.data.places import Places
from orpo.data.spill_file import SpillFile


@dataclass(frozen=True, slots=True)
class Lengths:
    """Numbers of tokens: `prompt` has one entry per example, `completions` one per completion.

    The completions of example i are the entries `first[i]` to `first[i + 1]`, so `first` has one entry more than there are examples.
    """

    prompt: NDArray[np.int64]
    completions: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def chosen(self) -> NDArray[np.int64]:
        """The first completion of each example: the chosen one of a pair, the best of a ranking."""
        return self.completions[self.first[:-1]]

    @property
    def rejected(self) -> NDArray[np.int64]:
        """The second completion of each example; 0 where it has a single one."""
        return np.where(self.num_completions > 1, self.completions[np.minimum(self.first[:-1] + 1, len(self.completions) - 1)], 0)

    @property
    def num_completions(self) -> NDArray[np.int64]:
        """How many completions each example has: 1 or more."""
        return np.diff(self.first)

    @property
    def completions_total(self) -> NDArray[np.int64]:
        """The sum over the completions of each example."""
        return np.add.reduceat(self.completions, self.first[:-1])

    @property
    def longest(self) -> NDArray[np.int64]:
        """The longest completion of each example."""
        return np.maximum.reduceat(self.completions, self.first[:-1])


class TokenStore(Sequence[TokenizedExample]):
    """Examples that are appended first and read afterwards; about 40 bytes of memory per pair.

    A label takes 1 byte more, a score 8. Labels, or scores, are those of all examples or of none.
    The first read ends the writing. From then on the ids are a read-only memory map, shared by threads and by forked processes.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = SpillFile("keeping tokenized pairs", folder)
        self._ends = array("q", [0])  # where each run of ids ends: a prompt, or one completion
        self._first = array("q", [0])  # number of the run an example begins with; one more entry than examples
        self._labels, self._scores = array("b"), array("d")  # one entry per completion; empty where there are none
        self._places = Places()
        self._ids: TokenIds | None = None
        self._freezing = threading.Lock()

    def append(self, example: TokenizedExample) -> None:
        """Adds an example at the end. Raises StorageError when the disk is full."""
        assert self._ids is None, "a store that was read takes no more examples"
        for values, kept in ((example.labels, self._labels), (example.scores, self._scores)):
            assert len(values) in (0, len(example.completions)), "one label and one score per completion, or none"
            assert not len(self) or bool(values) == bool(kept), "labels and scores are those of all examples or of none"
        parts = (example.prompt_ids, *example.completions)
        self._file.write(np.concatenate(parts).astype(np.int32, copy=False).tobytes())
        for ids in parts:
            self._ends.append(self._ends[-1] + len(ids))
        self._first.append(len(self._ends) - 1)
        self._places.append(example.source)
        self._labels.extend(example.labels)
        self._scores.extend(example.scores)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> TokenizedExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenizedExample]: ...
    def __getitem__(self, index: int | slice) -> TokenizedExample | list[TokenizedExample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        ids = self._frozen()
        runs = range(self._first[number], self._first[number + 1])
        # Copies: torch refuses to look at read-only memory without a warning.
        prompt, *completions = (ids[self._ends[run] : self._ends[run + 1]].copy() for run in runs)
        start, end = self._first[number] - number, self._first[number + 1] - number - 1  # each example before it has one prompt
        labels, scores = tuple(map(bool, self._labels[start:end])), tuple(self._scores[start:end])
        return TokenizedExample(prompt, tuple(completions), self.source(number), labels, scores)

    def __iter__(self) -> Iterator[TokenizedExample]:
        return (self[number] for number in range(len(self)))

    def source(self, index: int) -> Source:
        """The place an example came from."""
        return self._places[index]

    @property
    def lengths(self) -> Lengths:
        """Token counts of all examples."""
        ends = np.frombuffer(self._ends, dtype=np.int64)
        runs: NDArray[np.int64] = ends[1:] - ends[:-1]
        first = np.frombuffer(self._first, dtype=np.int64)
        is_completion = np.ones(len(runs), dtype=bool)
        is_completion[first[:-1]] = False
        return Lengths(runs[first[:-1]], runs[is_completion], first - np.arange(len(first)))

    @property
    def labels(self) -> NDArray[np.bool_]:
        """The label of each completion, in the order of `lengths.completions`; empty where the examples have none."""
        return np.array(self._labels, dtype=np.bool_)

    @property
    def scores(self) -> NDArray[np.float64]:
        """The score of each completion, in the order of `lengths.completions`; empty where the examples have none."""
        return np.array(self._scores, dtype=np.float64)

    def _frozen(self) -> TokenIds:
        with self._freezing:
            if self._ids is None:
                self._ids = self._file.array(np.int32)
        return self._ids

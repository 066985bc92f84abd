"""Sketches of texts, to find texts that are nearly the same without keeping them: examples enter, 128 bytes of each stay, on disk.

A text is the set of its windows: 16 bytes from the start of each word (of each character in Chinese, Japanese and Korean), case folded,
punctuation left out. One permutation of the windows is cut into 64 bins, and the smallest hash of each bin is kept (Li, Owen, Zhang 2012,
arXiv:1208.1259). The share of bins in which two sketches agree estimates the share of windows that two texts have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orpo.data.example import Example, text_of
from orpo.data.spill_file import SpillFile

NUM_BINS = 64
EMPTY = 0xFF
"""A bin without a window. Hashes are even, so none of them is this."""
EMPTY_BAND = np.uint32(0xFFFFFFFF)
MAX_CHARACTERS = 4096
"""What is read of a text. Texts that agree so far are taken to agree."""
WINDOW_BYTES = 16
_BATCH_EXAMPLES = 32
_CHUNK_BYTES = 2 * NUM_BINS << 9
_BIN_BITS = np.uint64(64 - 6)
_FOLDED = bytes(0 if code < 128 and not chr(code).isalnum() else code + 32 if 65 <= code <= 90 else code for code in range(256))
_PRIMES = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT = np.uint64(32)
_JOIN = np.uint32(0x9E3779B1)

Sketches = NDArray[np.uint8]
"""[examples, 2, 64]: of each example the sketch of its prompt and that of its answers."""


class SketchFile:
    """The sketches of many examples, in a temporary file: appended first, read afterwards. In memory a row takes 2 bytes."""

    def __init__(self) -> None:
        self._file = SpillFile("keeping sketches of the rows")
        self._waiting: list[Example] = []
        self._num_bins = bytearray()

    def append(self, example: Example) -> None:
        """Adds the sketch of an example. Raises StorageError when the disk is full."""
        self._waiting.append(example)
        if len(self._waiting) == _BATCH_EXAMPLES:
            self._flush()

    def num_bins(self, half: int) -> NDArray[np.uint8]:
        """How many bins of each sketch hold a window; `half` 0 are the prompts, 1 the answers."""
        self._flush()
        return np.frombuffer(self._num_bins, dtype=np.uint8)[half::2]

    def bands(self, half: int, quarter: int) -> NDArray[np.uint32]:
        """[4, examples]: a quarter of each sketch as four numbers, EMPTY_BAND for four empty bins. A quarter at a time, for memory's sake.

        A band in which a single bin is filled says little, and in short texts it is the rule: it is joined with the one beside it.
        """
        self._flush()
        start = half * NUM_BINS + quarter * 16
        found, place = np.empty((4, len(self._num_bins) // 2), dtype=np.uint32), 0
        for chunk in self._file.chunks(_CHUNK_BYTES):
            bins = np.ascontiguousarray(np.frombuffer(chunk, np.uint8).reshape(-1, 2 * NUM_BINS)[:, start : start + 16])
            bands = bins.view(np.uint32)
            is_poor = np.count_nonzero(bins.reshape(-1, 4, 4) != EMPTY, axis=2) == 1
            found[:, place : place + len(bins)] = np.where(is_poor, bands ^ (np.roll(bands, -1, axis=1) * _JOIN), bands).T
            place += len(bins)
        return found

    def rows(self, numbers: NDArray[np.int64]) -> Sketches:
        """The sketches of these examples."""
        self._flush()
        picked: Sketches = self._file.array(np.uint8).reshape(-1, 2, NUM_BINS)[numbers]
        return picked

    def _flush(self) -> None:
        if self._waiting:
            sketches = sketches_of(self._waiting)
            self._file.write(sketches.tobytes())
            self._num_bins += np.count_nonzero(sketches != EMPTY, axis=2).astype(np.uint8).tobytes()
            self._waiting = []


def sketches_of(examples: Sequence[Example]) -> Sketches:
    """The sketches of examples. An answer counts with its place, so chosen and rejected in exchange are other answers."""
    texts = [text_of(part)[:MAX_CHARACTERS] for example in examples for part in (example.prompt, *example.completions)]
    sizes = np.fromiter((1 + len(example.completions) for example in examples), np.int64, len(examples))
    first = np.cumsum(sizes) - sizes
    places = np.arange(len(texts)) - np.repeat(first, sizes)
    targets = 2 * np.repeat(np.arange(len(examples)), sizes) + (places > 0)
    bins = _smallest_hashes(texts, targets, places, num=2 * len(examples))
    return bins.reshape(len(examples), 2, NUM_BINS)


def _smallest_hashes(texts: Iterable[str], targets: NDArray[np.int64], places: NDArray[np.int64], *, num: int) -> Sketches:
    """[num * 64]: the smallest hash in each bin of each of `num` sketches; text i goes into sketch `targets[i]`, told by `places[i]`."""
    windows, counts = _windows([text.encode("utf-8", "surrogatepass") for text in texts])
    hashes = windows[:, 0] * _PRIMES[0]
    hashes ^= hashes >> _SHIFT
    hashes += windows[:, 1]
    hashes *= _PRIMES[2]
    hashes ^= hashes >> _SHIFT
    hashes += np.repeat(places.astype(np.uint64) * _PRIMES[1], counts)
    hashes *= _PRIMES[0]
    keys = np.repeat(targets * NUM_BINS, counts) + (hashes >> _BIN_BITS).astype(np.int64)
    smallest = np.full(num * NUM_BINS, 0xFFFF, dtype=np.uint16)
    np.minimum.at(smallest, keys, (hashes >> _SHIFT).astype(np.uint16) & np.uint16(0xFFFE))
    # The lower half of 16 bits: of two different windows one in 128 agrees by chance.
    return smallest.astype(np.uint8)


def _windows(texts: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[Any]]:
    """The windows of all texts, as two numbers each, and how many each text has."""
    gap = bytes(WINDOW_BYTES)
    folded = (b"\0" + gap.join(texts) + gap).translate(_FOLDED)
    codes = np.frombuffer(folded, dtype=np.uint8)
    is_start = (codes[1:] != 0) & (codes[:-1] == 0)
    # E3 to ED begin a character of a script that has no spaces (kana, Chinese, Hangul); the difference wraps below E3.
    is_start |= (codes[1:] - np.uint8(0xE3)) <= 0xED - 0xE3
    starts = np.flatnonzero(is_start) + 1
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + WINDOW_BYTES)
    counts = np.diff(np.searchsorted(starts, ends, side="right"), prepend=0)
    # One gather of 16 bytes costs half of two gathers of 8.
    view: NDArray[Any] = np.ndarray((len(folded) - WINDOW_BYTES + 1,), f"V{WINDOW_BYTES}", buffer=folded, strides=(1,))
    return view[starts].view("<u8").reshape(-1, 2), counts

"""Which rows are nearly the same as another: sketches enter, a mark for each row leaves. By buckets (LSH), then sketch by sketch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orpo.data.sketches import EMPTY, EMPTY_BAND, MAX_CHARACTERS, NUM_BINS, WINDOW_BYTES, SketchFile

ALIKE = 0.7
"""Texts are nearly the same when they have this share of their windows in common."""
LEAST_BINS = 8
"""Texts that fill fewer bins than this are nearly the same as none: a sketch cannot tell short texts apart."""
METHOD = (
    f"{100 * ALIKE:.0f} % or more in common of the {WINDOW_BYTES}-byte windows at word starts, by MinHash in {NUM_BINS} bins, "
    f"in texts of {LEAST_BINS} words or more, of which the first {MAX_CHARACTERS:,} characters are read"
)
_FEWEST_BINS = ALIKE * LEAST_BINS
_AT_ONCE = 1 << 9

Marks = NDArray[np.bool_]
Rows = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Band = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Likeness:
    """For each row: whether its prompt is nearly that of an earlier row, and whether prompt and answers are those of one earlier row.

    What is exactly the same is not marked: an equal prompt is no near one, a duplicate no near duplicate. `earlier` has the row that a
    marked whole is like.
    """

    prompts: Marks
    wholes: Marks
    earlier: NDArray[np.int32]


def likeness(sketches: SketchFile, prompts: Hashes, wholes: Hashes) -> Likeness:
    """What of each row is nearly in a row before it; `prompts` and `wholes` are the hashes of the rows.

    Rows share a bucket where four bins of a sketch agree, and each is compared with the first of its bucket. Two texts with 70 % of their
    windows in common meet in one of 16 buckets 98 times in 100; in a crowd of similar rows a few can be missed.
    """
    num = len(prompts)
    found = Likeness(np.zeros(num, dtype=bool), np.zeros(num, dtype=bool), np.zeros(num, dtype=np.int32))
    is_new = first_of_equals(wholes)
    for half in (0, 1):
        num_bins = sketches.num_bins(half)
        rows = np.flatnonzero(is_new & (num_bins >= _FEWEST_BINS))
        for bands in (bands for quarter in range(4) for bands in sketches.bands(half, quarter)):
            for earlier, later in _in_one_bucket(rows, bands[rows]):
                # Bins in common are at most those of the shorter text, bins in either at least those of the longer one.
                fewer, more = np.minimum(num_bins[earlier], num_bins[later]), np.maximum(num_bins[earlier], num_bins[later])
                may_be = fewer >= ALIKE * more
                _mark(found, sketches, prompts, earlier[may_be], later[may_be])
    found.prompts[~first_of_equals(prompts)] = False
    return found


def near_prompts(trained: SketchFile, trained_rows: Rows, held_out: SketchFile, held_rows: Rows) -> Marks:
    """Whether the prompt of each of `held_rows` is nearly that of one of `trained_rows`, or the same, by the rule of `likeness`."""
    found = np.zeros(len(held_rows), dtype=bool)
    trained_rows = trained_rows[trained.num_bins(0)[trained_rows] >= _FEWEST_BINS]
    for bands, wanted in _both_bands(trained, trained_rows, held_out, held_rows) if len(trained_rows) else ():
        buckets, first = np.unique(bands, return_index=True)
        bucket = np.minimum(np.searchsorted(buckets, wanted), len(buckets) - 1)
        meets = np.flatnonzero(~found & (buckets[bucket] == wanted) & (wanted != EMPTY_BAND))
        for begin in range(0, len(meets), _AT_ONCE):
            some = meets[begin : begin + _AT_ONCE]
            found[some] = _are_alike(trained.rows(trained_rows[first[bucket[some]]]), held_out.rows(held_rows[some]))[:, 0]
    return found


def stand_in(hashes: Hashes, others: Hashes) -> Marks:
    """Whether each of `hashes` is among `others`: np.isin in a quarter of its memory."""
    if not len(others):
        return np.zeros(len(hashes), dtype=bool)
    ordered = np.sort(others)
    return np.asarray(ordered[np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)] == hashes)


def _both_bands(trained: SketchFile, trained_rows: Rows, held_out: SketchFile, held_rows: Rows) -> Iterator[tuple[Band, Band]]:
    """The same band of the prompts of both, 16 times."""
    for quarter in range(4):
        yield from zip(trained.bands(0, quarter)[:, trained_rows], held_out.bands(0, quarter)[:, held_rows], strict=True)


def first_of_equals(hashes: Hashes) -> Marks:
    """Whether a row is the first with its hash."""
    is_first = np.zeros(len(hashes), dtype=bool)
    is_first[np.unique(hashes, return_index=True)[1]] = True
    return is_first


def _in_one_bucket(rows: Rows, bands: Band) -> Iterator[tuple[Rows, Rows]]:
    """The first row of each bucket with each of its others, (earlier, later), some hundred at once; empty bins make no bucket."""
    # One sort of band and place as a number: several times faster than a stable argsort, and its halves are views.
    ordered = bands.astype(np.uint64)
    ordered <<= np.uint64(32)
    ordered |= np.arange(len(bands), dtype=np.uint64)
    ordered.sort()
    places, buckets = ordered.view("<u4")[::2], ordered.view("<u4")[1::2]
    is_first = np.append(True, buckets[1:] != buckets[:-1])[: len(buckets)]
    is_later = np.flatnonzero(~is_first & (buckets != EMPTY_BAND))
    starts = np.flatnonzero(is_first)
    firsts = starts[np.searchsorted(starts, is_later, side="right") - 1]
    for begin in range(0, len(is_later), _AT_ONCE):
        some = slice(begin, begin + _AT_ONCE)
        yield rows[places[firsts[some]]], rows[places[is_later[some]]]


def _mark(found: Likeness, sketches: SketchFile, prompts: Hashes, earlier: Rows, later: Rows) -> None:
    """Nothing; marks those of `later` in `found` that are alike their row in `earlier`."""
    first, second = sketches.rows(earlier), sketches.rows(later)
    near, same = _are_alike(first, second), (first == second).all(axis=2)
    same[:, 0] = prompts[earlier] == prompts[later]
    found.prompts[later[near[:, 0] & ~same[:, 0]]] = True
    is_whole = (near | same).all(axis=1) & near.any(axis=1)
    found.wholes[later[is_whole]] = True
    found.earlier[later[is_whole]] = earlier[is_whole]


def _are_alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Marks:
    """Whether the halves of two examples have enough bins in common, [examples, 2]; bins that are empty in both count for nothing."""
    in_either = np.count_nonzero((first != EMPTY) | (second != EMPTY), axis=2)
    in_both = np.count_nonzero((first == second) & (first != EMPTY), axis=2)
    return np.asarray((in_either >= LEAST_BINS) & (in_both >= ALIKE * in_either))

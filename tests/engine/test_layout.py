"""How examples lie on one row, and that what is asked of the head adds up to every completion's own log-probs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.layout import Layout, PackedBatch, PackedExample, common_prefix, pack

Ids = Sequence[int]
Example = tuple[Ids, tuple[Ids, ...]]
Predictions = list[tuple[tuple[int, ...], int]]
"""(the tokens before, the token) of each predicted token."""


def tokenized(prompt: Ids, *completions: Ids) -> TokenizedExample:
    arrays = tuple(np.array(ids, dtype=np.int32) for ids in completions)
    return TokenizedExample(np.array(prompt, dtype=np.int32), arrays, Source("pairs.jsonl", 1))


def test_two_shared_pairs_lie_as_written_out_by_hand() -> None:
    # The first pair's answers agree in 7; the second's prompt is one token, its second answer too.
    first, second = tokenized([5, 6], [7, 8, 9], [7, 3]), tokenized([4], [1, 2], [3])
    batch = pack([first, second])
    assert batch.layout.examples == (PackedExample(0, 3, (2, 1)), PackedExample(6, 1, (2, 1)))
    assert batch.layout.num_rows == 10
    assert batch.layout.longest == 5
    assert batch.layout.examples[0].branch_starts == (3, 5)
    assert batch.layout.examples[1].branch_starts == (7, 9)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 3, 4, 1, 2, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2, 1]]
    table = batch.table
    # Prompt token 6; shared token 7; first tokens 8 and 3 of the branches, each from row 2; then 9 in its branch.
    assert table.rows.tolist() == [0, 1, 2, 3, 2, 6, 7, 6]
    assert table.targets.tolist() == [6, 7, 8, 9, 3, 1, 2, 3]
    # Sums: 0 chosen, 1 rejected, 2 prompt; 3, 4 and 5 of the second pair. Token 7 counts in both answers.
    assert table.entry_rows.tolist() == [0, 1, 1, 2, 3, 4, 5, 6, 7]
    assert table.entry_sums.tolist() == [2, 0, 1, 0, 0, 1, 3, 3, 4]
    assert table.num_sums == 6
    assert table.ends == (5, 8)
    assert table.entry_ends == (6, 9)


def test_an_unshared_pair_lies_as_written_out_by_hand() -> None:
    batch = pack([tokenized([5, 6], [7, 8], [7, 3])], sharing=False)
    assert batch.layout.examples == (PackedExample(0, 0, (4, 4)),)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 5, 6, 7, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    # The prompt is asked for in the first row alone.
    assert batch.table.rows.tolist() == [0, 1, 2, 5, 6]
    assert batch.table.targets.tolist() == [6, 7, 8, 7, 3]
    assert batch.table.entry_sums.tolist() == [2, 0, 0, 1, 1]


def test_without_the_prompt_its_tokens_are_not_asked_for() -> None:
    batch = pack([tokenized([5, 6], [7, 8, 9], [7, 3])], with_prompt=False)
    assert batch.table.targets.tolist() == [7, 8, 9, 3]
    assert batch.table.rows.tolist() == [1, 2, 3, 2]
    assert batch.table.entry_sums.tolist() == [0, 1, 0, 0, 1]
    assert batch.table.num_sums == 3


@pytest.mark.parametrize(
    ("prompt", "completions", "prefix", "rows"),
    [
        ([1, 2], ([3], [4]), 2, 4),
        ([1, 2], ([3, 5], [3, 6]), 3, 5),
        ([1, 2], ([3, 5], [3, 5]), 3, 5),
        ([1, 2], ([3], [3]), 2, 4),
        ([1, 2], ([3, 5, 7], [3, 5]), 3, 6),
        ([1], ([3, 5, 7], [3, 5, 8], [3, 9, 7]), 2, 8),
        ([1], ([3, 5],), 2, 3),
        ([1], ([3, 5, 7], [4, 5, 7]), 1, 7),
    ],
    ids=["nothing", "one token", "identical", "one token each", "one begins the other", "three", "alone", "same after a difference"],
)
def test_a_prefix_is_what_all_rows_begin_with_but_each_keeps_a_token(
    prompt: Ids, completions: tuple[Ids, ...], prefix: int, rows: int
) -> None:
    example = tokenized(prompt, *completions)
    assert common_prefix(example) == prefix
    assert pack([example]).layout.num_rows == rows
    assert pack([example], sharing=False).layout.num_rows == sum(len(prompt) + len(ids) for ids in completions)


def _context(batch: PackedBatch, row: int) -> tuple[int, ...]:
    """The tokens that `row` of the pack sees: its prefix, and its branch up to itself."""
    ids = batch.input_ids[0].tolist()
    for place in batch.layout.examples:
        if place.start <= row < place.start + place.prefix:
            return tuple(ids[place.start : row + 1])
        for start, own in zip(place.branch_starts, place.branches, strict=True):
            if start <= row < start + own:
                return (*ids[place.start : place.start + place.prefix], *ids[start : row + 1])
    raise AssertionError(f"row {row} belongs to no example")


def _asked(batch: PackedBatch) -> list[Predictions]:
    """What each sum of the table adds up."""
    table = batch.table
    sums: list[Predictions] = [[] for _ in range(table.num_sums)]
    for entry, number in zip(table.entry_rows.tolist(), table.entry_sums.tolist(), strict=True):
        sums[number].append((_context(batch, int(table.rows[entry])), int(table.targets[entry])))
    return sums


def _predictions(row: Ids, first: int, last: int) -> Predictions:
    """Tokens first..last-1 of a full row with all that stands before them."""
    return [(tuple(row[:token]), row[token]) for token in range(first, last)]


def _examples(least: int = 1, most: int = 3) -> st.SearchStrategy[list[Example]]:
    """Examples with `least` to `most` completions each, from three token ids, so that common beginnings are frequent."""
    ids = st.lists(st.integers(0, 2), min_size=1, max_size=6)
    completions = st.lists(ids, min_size=least, max_size=most).map(tuple)
    return st.lists(st.tuples(ids, completions), min_size=1, max_size=4)


@given(examples=_examples(), sharing=st.booleans(), with_prompt=st.booleans())
@case(examples=[([1], ([1], [1]))], sharing=True, with_prompt=True)
@case(examples=[([1, 2], ([0, 1, 2], [0, 1, 2]))], sharing=True, with_prompt=True)
@case(examples=[([1, 2], ([0, 1, 2], [0, 1]))], sharing=True, with_prompt=False)
@case(examples=[([1, 2], ([0], [0, 1])), ([1], ([2], [1]))], sharing=False, with_prompt=True)
@case(examples=[([1, 2], ([0, 1],)), ([1], ([2], [1], [2, 0]))], sharing=True, with_prompt=True)
@settings(deadline=None, max_examples=200)
def test_every_sum_holds_exactly_the_predictions_of_its_full_row(examples: list[Example], sharing: bool, with_prompt: bool) -> None:
    batch = pack([tokenized(prompt, *completions) for prompt, completions in examples], sharing=sharing, with_prompt=with_prompt)
    want: list[Predictions] = []
    for prompt, completions in examples:
        want += [_predictions([*prompt, *ids], len(prompt), len(prompt) + len(ids)) for ids in completions]
        want.append(_predictions(prompt, 1, len(prompt)) if with_prompt else [])
    assert [sorted(got) for got in _asked(batch)] == [sorted(sum_) for sum_ in want]


@given(examples=_examples(), sharing=st.booleans(), with_prompt=st.booleans())
@settings(deadline=None)
def test_rows_lie_without_gaps_and_say_where_they_stand(examples: list[Example], sharing: bool, with_prompt: bool) -> None:
    tokens = [tokenized(prompt, *completions) for prompt, completions in examples]
    batch = pack(tokens, sharing=sharing, with_prompt=with_prompt)
    places = batch.layout.examples
    assert [place.start for place in places] == np.cumsum([0, *(place.num_rows for place in places)])[:-1].tolist()
    whole = [[len(one.prompt_ids) + len(ids) for ids in one.completions] for one in tokens]
    saved = [(len(one.completions) - 1) * common_prefix(one) if sharing else 0 for one in tokens]
    assert [place.num_rows for place in places] == [sum(rows) - once for rows, once in zip(whole, saved, strict=True)]
    assert batch.layout.num_rows == batch.input_ids.shape[1] == batch.position_ids.shape[1]
    assert batch.layout.longest == max(len(prompt) + max(map(len, completions)) for prompt, completions in examples)
    positions = batch.position_ids[0].tolist()
    assert all(len(_context(batch, row)) == positions[row] + 1 for row in range(batch.layout.num_rows))


@given(examples=_examples(2, 2), sharing=st.booleans(), with_prompt=st.booleans())
@settings(deadline=None)
def test_ends_part_log_probs_and_entries_by_example(examples: list[Example], sharing: bool, with_prompt: bool) -> None:
    tokens = [tokenized(prompt, *completions) for prompt, completions in examples]
    table = pack(tokens, sharing=sharing, with_prompt=with_prompt).table
    assert table.ends[-1] == len(table.rows) == len(table.targets)
    assert table.entry_ends[-1] == len(table.entry_rows) == len(table.entry_sums)
    starts, entry_starts = (0, *table.ends), (0, *table.entry_ends)
    for index in range(len(tokens)):
        entries = slice(entry_starts[index], entry_starts[index + 1])
        assert (table.entry_sums[entries] // 3 == index).all()
        assert set(table.entry_rows[entries].tolist()) == set(range(starts[index], starts[index + 1]))


@given(examples=_examples(2, 2))
@settings(deadline=None)
def test_no_log_prob_is_asked_for_twice_in_a_shared_pack(examples: list[Example]) -> None:
    batch = pack([tokenized(prompt, *completions) for prompt, completions in examples], sharing=True)
    # Only a prefix's last row is asked more than once, once a branch: branches may begin with the same token.
    last_rows = {place.start + place.prefix - 1 for place in batch.layout.examples}
    once = [row for row in batch.table.rows.tolist() if row not in last_rows]
    assert len(once) == len(set(once))


def test_moving_a_batch_keeps_every_field() -> None:
    batch = pack([tokenized([5, 6], [7, 8, 9], [7, 3])])
    moved = batch.to(torch.device("cpu"))
    assert moved.layout is batch.layout
    assert torch.equal(moved.input_ids, batch.input_ids)
    assert torch.equal(moved.position_ids, batch.position_ids)
    for name in ("rows", "targets", "entry_rows", "entry_sums"):
        assert torch.equal(getattr(moved.table, name), getattr(batch.table, name))
    for name in ("num_sums", "ends", "entry_ends"):
        assert getattr(moved.table, name) == getattr(batch.table, name)


def test_what_attention_keeps_does_not_make_layouts_differ() -> None:
    place = PackedExample(0, 1, (1, 1))
    assert Layout((place,), {"calls": 3}) == Layout((place,))

"""Which pairs make a step, and how a step is cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orpo.engine.batching import epoch_order, heaviest_cut, micro_batches, pairs_before, step_pairs, steps_per_epoch

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=40)


@given(num_pairs=st.integers(1, 200), pairs_per_step=st.integers(1, 50), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_every_epoch_visits_every_pair_once(num_pairs: int, pairs_per_step: int, seed: int) -> None:
    steps = steps_per_epoch(num_pairs, pairs_per_step)
    for epoch in range(2):
        seen = [i for k in range(steps) for i in step_pairs(num_pairs, pairs_per_step, seed=seed, step=epoch * steps + k)]
        assert sorted(seen) == list(range(num_pairs))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    first = epoch_order(50, seed=1, epoch=0).tolist()
    assert first == epoch_order(50, seed=1, epoch=0).tolist()
    assert first != epoch_order(50, seed=1, epoch=1).tolist()
    assert first != epoch_order(50, seed=2, epoch=0).tolist()
    assert first != sorted(first)


@given(lengths=LENGTHS, budget=st.integers(300, 900), num_ranks=st.integers(1, 5))
@settings(deadline=None)
def test_a_cut_holds_each_pair_once_within_the_budget_with_equal_numbers_for_ranks(lengths: list[int], budget: int, num_ranks: int) -> None:
    ranks = micro_batches(lengths, budget, num_ranks=num_ranks)
    assert len(ranks) == num_ranks
    assert sorted(i for bins in ranks for members in bins for i in members) == list(range(len(lengths)))
    assert len({len(bins) for bins in ranks}) == 1
    assert all(sum(lengths[i] for i in members) <= budget for bins in ranks for members in bins)


@given(lengths=LENGTHS)
@settings(deadline=None)
def test_the_largest_micro_batch_comes_first(lengths: list[int]) -> None:
    (bins,) = micro_batches(lengths, 300)
    sizes = [sum(lengths[i] for i in members) for members in bins]
    assert sizes == sorted(sizes, reverse=True)


def test_equal_lengths_are_cut_as_the_budget_says() -> None:
    for budget, sizes in ((10, [1] * 8), (40, [4, 4]), (80, [8])):
        assert [len(members) for members in micro_batches([10] * 8, budget)[0]] == sizes


def test_two_ranks_share_a_single_full_bin() -> None:
    first, second = micro_batches([10] * 8, 80, num_ranks=2)
    assert [len(m) for m in first] == [4]
    assert [len(m) for m in second] == [4]


def test_one_pair_on_two_ranks_leaves_one_with_an_empty_share() -> None:
    assert micro_batches([10], 80, num_ranks=2) == [[[0]], [[]]]


def test_visits_before_a_step_are_those_of_the_steps_before_it() -> None:
    seen = [0] * 10
    for step in range(9):
        assert pairs_before(10, 4, seed=3, step=step).tolist() == seen
        for index in step_pairs(10, 4, seed=3, step=step):
            seen[index] += 1


@given(lengths=LENGTHS, per_step=st.integers(1, 9), budget=st.integers(300, 900), ranks=st.integers(1, 3), first=st.integers(0, 5))
@settings(deadline=None)
def test_the_largest_micro_batch_of_a_run_is_found_before_it_starts(
    lengths: list[int], per_step: int, budget: int, ranks: int, first: int
) -> None:
    steps = range(first, first + 7)

    def size(members: list[int]) -> int:
        return sum(lengths[i] for i in members)

    every = []
    for step in steps:
        pairs = step_pairs(len(lengths), per_step, seed=1, step=step)
        cut = micro_batches([lengths[i] for i in pairs], budget, num_ranks=ranks)
        every += [[pairs[i] for i in members] for bins in cut for members in bins]
    cut = heaviest_cut(lengths, per_step, budget, seed=1, steps=steps, num_ranks=ranks)
    assert size(cut[0]) == max(size(members) for members in every)
    together = [i for members in cut for i in members]
    assert len(set(together)) == len(together)

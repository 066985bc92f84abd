"""The rules that judge claims: numbers on both sides of each, worked out by hand."""

from __future__ import annotations

import pytest

from evidence.claims import Estimate, all_of, differences, is_above, is_below, over_seeds, signed
from evidence.comparisons import turned
from evidence.cost import level, reached, work
from evidence.gradient import factor_verdict, sign_verdict
from evidence.no_penalty import verdict as penalty_verdict
from evidence.ratios import spread_verdict


def test_the_interval_over_seeds_is_students():
    # Mean 2, variance 1, three seeds: half is 4.303 * sqrt(1 / 3).
    found = over_seeds([1.0, 2.0, 3.0])
    assert (found.mean, found.num) == (2.0, 3)
    assert found.high - found.mean == pytest.approx(4.303 / 3**0.5)
    assert found.mean - found.low == pytest.approx(4.303 / 3**0.5)


def test_one_seed_has_no_interval():
    with pytest.raises(AssertionError, match="interval over 1 seeds"):
        over_seeds([1.0])


def test_differences_are_paired_by_seed():
    # Each seed differs by exactly 1, however far seeds are apart: no width.
    assert differences([1.0, 5.0, 9.0], [0.0, 4.0, 8.0]) == Estimate(1.0, 1.0, 1.0, 3)


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.1, 0.3, "shown", "opposite"),
        (-0.3, -0.1, "opposite", "shown"),
        (-0.1, 0.3, "not shown", "not shown"),
        (0.0, 0.3, "not shown", "not shown"),
    ],
)
def test_a_direction_is_shown_where_the_whole_interval_lies_on_its_side(low: float, high: float, above: str, below: str):
    estimate = Estimate((low + high) / 2, low, high, 5)
    assert (is_above(estimate), is_below(estimate)) == (above, below)


def test_a_limit_moves_the_border():
    estimate = Estimate(0.95, 0.92, 0.98, 5)
    assert is_above(estimate, 0.9) == "shown"
    assert is_above(estimate, 0.95) == "not shown"
    assert is_above(estimate, 0.99) == "opposite"
    assert is_below(estimate, 1.0) == "shown"
    assert is_below(estimate, 0.9) == "opposite"


def test_a_claim_with_parts_needs_all_of_them_and_falls_with_one():
    assert all_of("shown", "shown") == "shown"
    assert all_of("shown", "not shown") == "not shown"
    assert all_of("shown", "opposite", "not shown") == "opposite"


def test_a_difference_seen_from_the_other_side_swaps_its_ends():
    assert turned(Estimate(0.2, 0.1, 0.4, 5)) == Estimate(-0.2, -0.4, -0.1, 5)


def test_the_printed_sign_is_judged_by_which_side_autograd_is_on():
    assert sign_verdict(minus=1e-15, plus=2.0) == "opposite"
    assert sign_verdict(minus=2.0, plus=1e-15) == "shown"
    assert sign_verdict(minus=0.5, plus=0.5) == "not shown"


def test_the_factor_is_judged_by_its_course_over_p():
    assert factor_verdict([1.1, 2.0, 10.0]) == "opposite"
    assert factor_verdict([10.0, 2.0, 1.1]) == "shown"
    assert factor_verdict([1.0, 3.0, 2.0]) == "not shown"


def test_no_penalty_needs_exact_zeros_of_sft_and_every_push_of_orpo_down():
    zero, down, mixed = {"least": 0.0, "most": 0.0}, {"least": -0.2, "most": -0.1}, {"least": -0.2, "most": 0.1}
    assert penalty_verdict(zero, down) == "shown"
    assert penalty_verdict(zero, mixed) == "not shown"
    assert penalty_verdict(zero, {"least": 0.1, "most": 0.2}) == "opposite"
    assert penalty_verdict({"least": -1e-12, "most": 0.0}, down) == "not shown"


def test_the_spread_is_the_printed_one_within_a_hundredth():
    assert spread_verdict(1.414, 2.565) == "shown"
    assert spread_verdict(1.45, 2.565) == "not shown"
    assert spread_verdict(2.565, 1.414) == "opposite"


def test_cost_is_read_where_a_score_is_first_reached():
    curve = {"score": [0.5, 0.7, 0.65, 0.8], "tokens": [0, 1e6, 2e6, 3e6], "reference_tokens": [0, 0, 1e6, 2e6]}
    assert [reached(curve, score) for score in (0.5, 0.6, 0.7, 0.75)] == [0, 1, 1, 3]
    # Forward and backward of a policy token are three forwards, a reference token is one.
    assert work(curve) == [0, 3, 7, 11]


def test_the_common_level_is_what_the_worst_run_reaches_in_hundredths():
    curves = {"one": [{"score": [0.5, 0.839]}], "other": [{"score": [0.5, 0.91]}, {"score": [0.8, 0.7]}]}
    assert level(curves) == 0.8
    assert level({"one": [{"score": [0.29]}]}) == 0.29


def test_numbers_are_written_with_a_sign():
    assert [signed(value) for value in (0.1234, -0.5, 0.0)] == ["+0.123", "−0.500", "+0.000"]

"""Intervals against published values, and what they promise for every input."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo.core.intervals import Z_95, mean_interval, wilson_interval


def test_z_is_the_97_5_percent_point_of_the_normal_distribution() -> None:
    assert pytest.approx(statistics.NormalDist().inv_cdf(0.975), abs=1e-12) == Z_95


# 81/263, 15/148, 0/20 and 1/29: table I of Newcombe, Statistics in Medicine 17 (1998) 857-872, method 3.
PUBLISHED = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (8, 10, 0.4902, 0.9433),
]


@pytest.mark.parametrize(("successes", "num", "low", "high"), PUBLISHED)
def test_wilson_intervals_are_the_published_ones(successes: int, num: int, low: float, high: float) -> None:
    assert wilson_interval(successes, num) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("num", [1, 2, 3, 7, 10, 49, 100, 999, 12345])
def test_none_begins_at_exactly_zero_and_all_ends_at_exactly_one(num: int) -> None:
    rest = Z_95**2 / (num + Z_95**2)  # the closed form at both ends
    assert wilson_interval(0, num) == (0.0, pytest.approx(rest, rel=1e-12))
    assert wilson_interval(num, num) == (pytest.approx(1 - rest, rel=1e-12), 1.0)


@given(st.integers(1, 10**7).flatmap(lambda num: st.tuples(st.integers(0, num), st.just(num))), st.floats(0.01, 10))
def test_a_wilson_interval_lies_in_0_to_1_and_holds_the_share(counts: tuple[int, int], z: float) -> None:
    successes, num = counts
    low, high = wilson_interval(successes, num, z=z)
    assert 0.0 <= low <= successes / num <= high <= 1.0


@given(st.integers(1, 1000).flatmap(lambda num: st.tuples(st.integers(0, num), st.just(num))))
def test_failures_have_the_mirrored_interval_of_successes(counts: tuple[int, int]) -> None:
    successes, num = counts
    low, high = wilson_interval(successes, num)
    assert wilson_interval(num - successes, num) == (pytest.approx(1 - high, abs=1e-12), pytest.approx(1 - low, abs=1e-12))


def test_the_ends_of_a_wilson_interval_solve_the_score_equation() -> None:
    for end in wilson_interval(37, 90):
        assert abs(37 / 90 - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / 90), rel=1e-9)


def test_a_mean_has_the_interval_computed_by_hand() -> None:
    # Mean 3; squared deviations 4 + 1 + 0 + 1 + 4 = 10 over 4; standard error sqrt(2.5 / 5).
    half = 1.959964 * math.sqrt(0.5)
    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, pytest.approx(3 - half, abs=1e-6), pytest.approx(3 + half, abs=1e-6))


def test_equal_values_and_a_single_one_have_an_interval_of_no_width() -> None:
    assert mean_interval([0.25] * 8) == (0.25, 0.25, 0.25)
    assert mean_interval([-2.5]) == (-2.5, -2.5, -2.5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_a_mean_interval_agrees_with_the_statistics_module(values: list[float]) -> None:
    mean, low, high = mean_interval(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert (high - low) / 2 == pytest.approx(Z_95 * error, rel=1e-6, abs=1e-8)

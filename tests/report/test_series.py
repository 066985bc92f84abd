"""Curves from rows: smoothing, thinning, ticks, labels."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo.report import axes
from orpo.report.series import curve, evenly, means, rule_in_words, thin, window_size


def test_ten_points_are_smoothed_by_means_of_five_with_fewer_at_the_ends() -> None:
    points = [(float(i), float(i * i)) for i in range(10)]
    smooth = means(points, window_size(10))
    assert smooth[0] == (0.0, pytest.approx((0 + 1 + 4) / 3))
    assert smooth[1] == (1.0, pytest.approx((0 + 1 + 4 + 9) / 4))
    assert smooth[5] == (5.0, pytest.approx((9 + 16 + 25 + 36 + 49) / 5))
    assert smooth[9] == (9.0, pytest.approx((49 + 64 + 81) / 3))


def test_nine_points_are_drawn_as_they_are() -> None:
    shown = curve([{"step": i, "loss": i % 3} for i in range(9)], "loss")
    assert shown.smooth == shown.raw
    assert rule_in_words(shown) == "Thin lines: training, each logged point."


@pytest.mark.parametrize(("points", "window"), [(9, 1), (10, 5), (150, 5), (180, 7), (5000, 167)])
def test_the_window_grows_with_the_number_of_points_and_is_odd(points: int, window: int) -> None:
    assert window_size(points) == window


def test_the_rule_names_the_window_and_how_dots_were_thinned() -> None:
    rule = rule_in_words(curve([{"step": i, "loss": 1.0} for i in range(5000)], "loss"))
    assert "mean of 167 points (83 on each side" in rule
    assert "Of 5000 logged points the lowest and highest of each of 100 equal runs" in rule


def test_null_is_counted_and_a_missing_key_is_not() -> None:
    shown = curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3}, {"step": 4, "loss": "nan"}], "loss", scale=-0.5)
    assert shown.raw == ((1.0, -1.0),)
    assert shown.num_not_finite == 2


def test_points_come_in_the_order_of_their_steps() -> None:
    assert curve([{"step": 5, "loss": 1.0}, {"step": 2, "loss": 3.0}], "loss").raw == ((2.0, 3.0), (5.0, 1.0))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_thinning_keeps_few_points_all_of_them_real_with_the_extremes_among_them(values: list[float]) -> None:
    points = tuple((float(i), value) for i, value in enumerate(values))
    kept = thin(points, most=50)
    assert len(kept) <= 50
    assert set(kept) <= set(points)
    assert list(kept) == sorted(kept)
    assert {min(values), max(values)} <= {value for _, value in kept}


@given(st.integers(1, 3000), st.integers(2, 200))
def test_even_steps_keep_first_and_last(num: int, most: int) -> None:
    kept = evenly(range(num), most)
    assert len(kept) == min(num, most) == len(set(kept))
    assert (kept[0], kept[-1]) == (0, num - 1)


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0.0, 1.0, False, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-2.6, -1.2, False, ["\u22122.5", "\u22122.0", "\u22121.5"]),
        (0, 150, True, ["0", "50", "100", "150"]),
        (1, 3, True, ["1", "2", "3"]),
        (0.0, 1e-3, False, ["0", "2e\u22124", "4e\u22124", "6e\u22124", "8e\u22124", "1e\u22123"]),
    ],
)
def test_ticks_are_round_and_spelled_alike(low: float, high: float, whole: bool, expected: list[str]) -> None:
    assert axes.tick_labels(axes.ticks(low, high, whole=whole)) == expected


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e9))
def test_ticks_lie_within_the_range_and_are_few(low: float, span: float) -> None:
    found = axes.ticks(low, low + span)
    assert 2 <= len(found) <= 7
    assert all(low - span * 1e-6 <= value <= low + span * (1 + 1e-6) for value in found)


def test_a_single_step_and_a_constant_value_have_a_place() -> None:
    low, high = axes.value_range([2.0], [])
    frame = axes.Frame(3, 3, low, high)
    assert low < 2.0 < high
    assert frame.x(3) == axes.LEFT
    assert axes.ticks(3, 3) == [3]


def test_one_wild_dot_in_a_hundred_does_not_set_the_range() -> None:
    low, high = axes.value_range([1.0, 2.0], [1.5] * 150 + [1e9])
    assert high < 3
    assert axes.Frame(0, 1, low, high).is_outside(1e9)
    assert axes.Frame(0, 1, low, high).y(1e9) == axes.TOP


@given(st.lists(st.floats(-50, 400), max_size=6))
def test_labels_never_lie_on_each_other_and_keep_their_order(places: list[float]) -> None:
    moved = axes.spread(places, 17, low=26, high=238)
    ordered = sorted(moved)
    assert all(b - a >= 17 - 1e-9 for a, b in pairwise(ordered))
    assert all(moved[i] <= moved[j] for i in range(len(places)) for j in range(len(places)) if places[i] < places[j])
    assert all(26 - 1e-9 <= place <= 238 + 1e-9 for place in moved)


def test_labels_that_are_far_apart_stay_where_they_are() -> None:
    assert axes.spread([200.0, 50.0], 17, low=26, high=238) == [200.0, 50.0]

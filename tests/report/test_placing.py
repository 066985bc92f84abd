"""Names on drawings: they fit, stay apart, and stay inside."""

from __future__ import annotations

import itertools
import random

import pytest

from orpo.report.labels import ELLIPSIS, fitted, fitted_names, text_width
from orpo.report.placing import Box, label_boxes

WITHIN = Box(44, 14, 464, 250)


def placed(points: list[tuple[float, float]], widths: list[float]) -> tuple[Box, ...]:
    obstacles = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    return label_boxes(points, widths, height=14, within=WITHIN, obstacles=obstacles)


@pytest.mark.parametrize("seed", range(12))
def test_twelve_labels_never_cover_each_other_and_stay_inside(seed: int) -> None:
    draw = random.Random(seed)
    points = [(draw.uniform(200, 340), draw.uniform(60, 210)) for _ in range(12)]
    boxes = placed(points, [draw.uniform(25, 118) for _ in points])
    assert all(one.overlap(other) == 0 for one, other in itertools.combinations(boxes, 2))
    assert all(box.lies_in(WITHIN) for box in boxes)


def test_labels_of_points_at_one_place_are_spread_around_it() -> None:
    boxes = placed([(250.0, 130.0)] * 12, [80.0] * 12)
    assert all(one.overlap(other) == 0 for one, other in itertools.combinations(boxes, 2))


def test_a_label_alone_stands_beside_its_point_and_not_on_it() -> None:
    (box,) = placed([(200.0, 100.0)], [60.0])
    assert box.overlap(Box(194, 94, 206, 106)) == 0
    assert box.left - 200 <= 10
    assert box.top < 100 < box.bottom


def test_a_label_at_the_right_edge_goes_to_the_left() -> None:
    (box,) = placed([(450.0, 100.0)], [60.0])
    assert box.right < 450


def test_a_label_as_wide_as_the_drawing_stays_inside() -> None:
    (box,) = placed([(450.0, 240.0)], [WITHIN.right - WITHIN.left])
    assert box.lies_in(WITHIN)


def test_boxes_overlap_by_the_area_that_both_cover() -> None:
    assert Box(0, 0, 4, 4).overlap(Box(2, 1, 9, 3)) == 4
    assert Box(0, 0, 4, 4).overlap(Box(4, 0, 8, 4)) == 0


@pytest.mark.parametrize(
    "name", ["sft > dpo", "a pipeline with a very long name, of three stages indeed", "w" * 900, "\u8a9e" * 40, "", "\u202e" * 30]
)
@pytest.mark.parametrize("most", [40.0, 150.0])
def test_a_fitted_name_is_no_wider_than_its_place(name: str, most: float) -> None:
    assert text_width(fitted(name, most)) <= most


def test_a_name_that_fits_is_left_as_it_is_and_a_longer_one_keeps_both_ends() -> None:
    assert fitted("sft > dpo", 150) == "sft > dpo"
    cut = fitted("sft > dpo with beta 0.3 and more > kto", 150)
    assert cut.startswith("sft > d")
    assert cut.endswith("kto")
    assert ELLIPSIS in cut


def test_names_that_became_equal_are_told_apart_by_their_place() -> None:
    names = fitted_names(["a" * 60, "a" * 30 + "b" + "a" * 60, "sft"], 100)
    assert len(set(names)) == 3
    assert names[2] == "sft"
    assert names[0].startswith("1: ")


def test_a_name_of_several_lines_becomes_one() -> None:
    assert fitted("a\nb\tc", 100) == "a b c"

"""How numbers are spelled."""

from __future__ import annotations

import math

import pytest

from orpo.report import numbers
from orpo.report.numbers import as_number

M, T = "\u2212", "\u202f"


@pytest.mark.parametrize(
    ("spell", "value", "expected"),
    [
        (numbers.nats, -1.3627, f"{M}1.36"),
        (numbers.nats, 0.0421, "0.042"),
        (numbers.nats, -0.0001, "0.00"),
        (numbers.percent, 0.88, f"88{T}%"),
        (numbers.percent, 0.997, f"99.7{T}%"),
        (numbers.percent, 0.004, f"0.4{T}%"),
        (numbers.percent, 1.0, f"100{T}%"),
        (numbers.percent, 0.0, f"0{T}%"),
        (numbers.count, 1_234_567, f"1{T}234{T}567"),
        (numbers.short, 8e-6, f"8e{M}6"),
        (numbers.short, 0.125, "0.125"),
        (numbers.short, 12_400.0, f"12{T}400"),
        (numbers.short, 1_213_440, f"1.21{T}M"),
        (numbers.short, 0.0, "0"),
        (numbers.duration, 75.2, f"1{T}min 15{T}s"),
        (numbers.duration, 3.14, f"3.14{T}s"),
        (numbers.duration, 7322, f"2{T}h 2{T}min"),
        (numbers.moment, "2026-01-05T11:01:15+01:00", "2026-01-05 10:01 UTC"),
        (numbers.moment, "soon", "soon"),
        (numbers.moment, None, "None"),
    ],
)
def test_numbers_are_spelled_for_people(spell: object, value: object, expected: str) -> None:
    assert callable(spell)
    assert spell(value) == expected


@pytest.mark.parametrize("value", [None, "1", True, math.nan, math.inf, -math.inf, [1], {}, 10**400])
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert as_number(value) is None


def test_the_exact_value_stays_beside_the_rounded_one() -> None:
    assert numbers.datum(0.8812345678901234, "88 %").markup == '<data value="0.8812345678901234">88 %</data>'


def test_an_absent_value_is_a_dash_and_no_number() -> None:
    assert numbers.datum(None, "0").markup == "<span>\u2013</span>"

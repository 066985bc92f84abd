"""Log odds against 60-digit arithmetic, and at the edge where a model is certain."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orpo.objectives.stable import CLAMP, CLAMP_SLOPE, log1mexp, log_odds, num_clamped

GRID = [-700.0, -50.0, -5.0, -1.0, -0.6931471805599454, -0.6931471805599452, -0.5, -1e-3, -1e-6, -1.0000001e-7]


def exact_log1mexp(x: float) -> float:
    with localcontext() as context:
        context.prec = 400
        return float((1 - Decimal(x).exp()).ln())


def exact_log_odds(a: float) -> float:
    with localcontext() as context:
        context.prec = 400
        return float(Decimal(a) - (1 - Decimal(a).exp()).ln())


def exact_slope(a: float) -> float:
    with localcontext() as context:
        context.prec = 400
        return float(1 / (1 - Decimal(a).exp()))


def test_log1mexp_is_right_to_the_last_bits_on_both_sides_of_its_switch() -> None:
    x = torch.tensor(GRID, dtype=torch.float64)
    expected = torch.tensor([exact_log1mexp(value) for value in GRID], dtype=torch.float64)
    torch.testing.assert_close(log1mexp(x), expected, rtol=1e-14, atol=0)


def test_log1mexp_keeps_fp32_and_is_right_to_its_precision() -> None:
    x = torch.tensor(GRID[1:], dtype=torch.float32)
    expected = torch.tensor([exact_log1mexp(float(value)) for value in x], dtype=torch.float32)
    assert log1mexp(x).dtype == torch.float32
    torch.testing.assert_close(log1mexp(x), expected, rtol=5e-7, atol=0)


@pytest.mark.parametrize("x", [-1e-300, -1e-20, -800.0, -1e300])
def test_the_branch_of_log1mexp_that_is_not_taken_carries_no_nan_into_backward(x: float) -> None:
    leaf = torch.tensor([x, -1.0], dtype=torch.float64, requires_grad=True)
    log1mexp(leaf).sum().backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad[1].item() == pytest.approx(-1 / math.expm1(1.0), rel=1e-14)


@pytest.mark.parametrize("a", GRID)
def test_log_odds_and_its_gradient_are_right_below_the_clamp(a: float) -> None:
    leaf = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    value = log_odds(leaf)
    value.backward()
    assert leaf.grad is not None
    assert value.item() == pytest.approx(exact_log_odds(a), rel=1e-14)
    assert leaf.grad.item() == pytest.approx(exact_slope(a), rel=1e-14)


def test_log_odds_of_fp32_are_computed_in_fp64() -> None:
    a = torch.tensor(-1e-4, dtype=torch.float32)
    assert log_odds(a).dtype == torch.float64
    assert log_odds(a).item() == pytest.approx(exact_log_odds(a.item()), rel=1e-14)


@pytest.mark.parametrize("a", [-1e-8, -1e-12, -5e-324, 0.0, 1e-8, 2.4e-7])
def test_beyond_the_clamp_log_odds_go_on_along_the_tangent(a: float) -> None:
    leaf = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    value = log_odds(leaf)
    value.backward()
    assert leaf.grad is not None
    assert value.item() == pytest.approx(exact_log_odds(CLAMP) + exact_slope(CLAMP) * (a - CLAMP), rel=1e-13)
    assert leaf.grad.item() == CLAMP_SLOPE
    assert pytest.approx(exact_slope(CLAMP), rel=1e-14) == CLAMP_SLOPE


@pytest.mark.parametrize("a", [-1.5e-7, CLAMP, -5e-8, 0.0, 1e-7])
def test_the_gradient_is_the_derivative_of_the_value_also_at_and_beyond_the_clamp(a: float) -> None:
    leaf = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    log_odds(leaf).backward()
    step = 1e-11
    above, below = (log_odds(torch.tensor(a + sign * step, dtype=torch.float64)).item() for sign in (1, -1))
    assert leaf.grad is not None
    assert leaf.grad.item() == pytest.approx((above - below) / (2 * step), rel=1e-3)


def test_log_odds_increase_strictly_over_the_clamp() -> None:
    a = torch.tensor([-2.0, -1e-3, -2e-7, -1e-7, -9e-8, -1e-9, 0.0, 1e-8], dtype=torch.float64)
    assert (log_odds(a).diff() > 0).all()


@given(st.floats(max_value=0.0, allow_nan=False, allow_infinity=False))
def test_log_odds_and_their_gradient_are_finite_for_every_log_prob(a: float) -> None:
    leaf = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    value = log_odds(leaf)
    value.backward()
    assert leaf.grad is not None
    assert math.isfinite(value.item())
    assert 1.0 <= leaf.grad.item() <= CLAMP_SLOPE


def test_nan_is_not_hidden() -> None:
    assert log_odds(torch.tensor(float("nan"))).isnan()


def test_second_derivatives_are_right() -> None:
    leaf = torch.tensor([-3.0, -0.7, -0.6, -1e-2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(log_odds, (leaf,))


def test_the_clamped_are_counted_and_those_at_the_clamp_are_not() -> None:
    a = torch.tensor([-1.0, CLAMP, -9.9e-8, 0.0, 1e-8], dtype=torch.float64, requires_grad=True)
    count = num_clamped(a)
    assert count.item() == 3
    assert (count.dtype, count.shape, count.requires_grad) == (torch.float64, torch.Size([]), False)

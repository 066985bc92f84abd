"""Budgets become steps: exact tokens of the order of the data, equal shares."""

from __future__ import annotations

import numpy as np
import pytest

from orpo.comparison.budget import Budget, parsed_budget, steps_for_seconds, steps_for_tokens
from orpo.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("300 steps", "steps", 300),
        ("1 step", "steps", 1),
        ("2M tokens", "tokens", 2e6),
        ("1.5M tokens", "tokens", 1.5e6),
        ("500_000 tokens", "tokens", 5e5),
        ("20k tokens", "tokens", 2e4),
        ("600 seconds", "seconds", 600),
    ],
)
def test_a_budget_is_an_amount_with_its_unit(text: str, kind: str, amount: float) -> None:
    assert parsed_budget(text, where="f:1") == Budget(kind, amount)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [300, "300", "steps", "0 steps", "1.5 steps", "-3 steps", "3 epochs", None])
def test_anything_else_is_no_budget(text: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed_budget(text, where="f:7")
    assert caught.value.where == "f:7"


def test_steps_are_shared_evenly_and_what_is_left_over_goes_to_the_first() -> None:
    assert [Budget("steps", 301).share(2, stage) for stage in range(2)] == [151, 150]
    assert [Budget("tokens", 300).share(2, stage) for stage in range(2)] == [150, 150]


def test_tokens_pay_as_many_steps_as_their_exact_tokens_allow() -> None:
    orders = [np.array([10, 30, 20, 20]), np.array([30, 10, 10, 30])]  # means: 20, 20, 15, 25
    assert [steps_for_tokens(orders, 0, share) for share in (19, 20, 39, 40, 54, 55, 80)] == [0, 1, 1, 2, 2, 3, 4]
    assert steps_for_tokens(orders, 35, 55) == 1


def test_seconds_pay_what_is_left_after_what_goes_before_the_first_step() -> None:
    assert [steps_for_seconds(0.5, once, 10) for once in (0, 4, 10, 11)] == [20, 12, 0, 0]

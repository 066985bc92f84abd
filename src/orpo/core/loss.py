"""What an objective returns: sums with their units. The mean is made once, by `step_loss`, from the counts of the whole step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from orpo.core.tokens import UNITS


@dataclass(frozen=True, slots=True)
class Term:
    """A summand of the loss: `total` (scalar, differentiable) will be divided by the step's count of `unit` and times `weight`."""

    name: str
    total: Tensor
    unit: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        assert self.unit in UNITS, f"unit {self.unit!r} is not one of {UNITS}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity to log: `total` (scalar, detached), shown divided by the step's count of `unit`, or as it is when unit is ''."""

    total: Tensor
    unit: str = "pairs"


@dataclass(frozen=True, slots=True)
class Loss:
    """The terms that are added up and the metrics that are only shown."""

    terms: tuple[Term, ...]
    metrics: Mapping[str, Metric]


def step_loss(loss: Loss, counts: Mapping[str, int]) -> Tensor:
    """Sum over terms of weight * total / counts[unit], fp64 scalar: this micro-batch's share of the step's loss.

    `counts` are those of the whole optimizer step over all ranks; a step holds at least one pair and each completion
    at least one token, so no count is zero. Shares of micro-batches add up to the step's loss however it was cut.
    """
    shares = [term.weight * term.total.double() / counts[term.unit] for term in loss.terms]
    return torch.stack(shares).sum()

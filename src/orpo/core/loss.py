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

    `counts` are those of the whole optimizer step over all ranks. Shares of micro-batches add up to the step's loss however it
    was cut. A step without undesirable answers, say, has a count of 0 for them: their total is then a sum over nothing, and the
    term is that 0, with its graph. See `denominator`.
    """
    shares = [term.weight * term.total.double() / denominator(counts, term.unit) for term in loss.terms]
    return torch.stack(shares).sum()


def denominator(counts: Mapping[str, int], unit: str) -> int:
    """What a sum of `unit` is divided by: its count in the step, or 1 where there is none, because the sum over nothing is 0 then."""
    return max(counts[unit], 1)

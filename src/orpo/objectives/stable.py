"""Log odds of a length-averaged probability: a mean log-prob (nats) enters, fp64 leaves, finite even where a model is certain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LN_2 = math.log(2.0)

CLAMP = -1e-7
"""Above this mean log-prob 1 - P is below what fp32 logits can tell (one unit in the last place of 1 is 1.2e-7): odds there are noise."""

CLAMP_SLOPE = -1.0 / math.expm1(CLAMP)
"""d log_odds / da at CLAMP, about 1e7: the largest gradient that log_odds ever gives."""


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0 in the dtype of x, to the last few bits; -inf at 0.

    Two forms of the same quantity (Maechler 2012): log(-expm1 x) near 0, where 1 - e^x cancels, and log1p(-e^x) below
    -ln 2, where e^x vanishes beside 1. `where` sends the gradient 0 into the form not taken, and 0 * inf is NaN: the second
    form, infinite at 0, is given another argument there. The first is finite, with a finite slope, for every x < 0.
    """
    near = x > -LN_2
    far = torch.where(near, -LN_2, x)
    return torch.where(near, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(far)))


def log_odds(mean_logps: Tensor) -> Tensor:
    """log(P / (1 - P)) for P = e^a, in fp64, with a = `mean_logps` <= 0 of any shape.

    It is a - log(1 - e^a), strictly increasing, with the gradient -1 / expm1(a) = 1 / (1 - P). Towards a = 0 both run to
    infinity; so above CLAMP the curve goes on along its tangent in CLAMP: value log_odds(CLAMP) + CLAMP_SLOPE * (a - CLAMP),
    gradient CLAMP_SLOPE. Then a = 0, and an a that rounding has made slightly positive, have a finite value and a finite
    gradient, and the gradient is the derivative of the value. A plain clamp would give such an answer no gradient: a rejected
    answer the model is certain of could never be pushed down (docs/decisions/objectives-saturated-odds.md). NaN stays NaN.
    """
    a = mean_logps.double()
    below = a.clamp(max=CLAMP)
    # At a == CLAMP clamp passes the gradient and relu does not, so it is counted once.
    return below - log1mexp(below) + CLAMP_SLOPE * torch.relu(a - CLAMP)


def num_clamped(mean_logps: Tensor) -> Tensor:
    """How many of `mean_logps` lie above CLAMP, where log_odds follows its tangent: a detached fp64 scalar, left on its device."""
    return (mean_logps.detach().double() > CLAMP).sum().double()

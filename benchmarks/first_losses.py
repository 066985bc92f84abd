"""Whether two contenders compute the same thing: their losses of the first step enter, the largest difference leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contenders import Contender
from rounds import Round

LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Nats between our first loss and TRL's. In bfloat16 each side rounds in its own order; equality is what the float32 run shows."""
TIMES_TOLERANCE = {"ipo": 10}
"""Rivals whose loss is another measure: that of IPO is about 25, and 10 times as steep as a mean log-prob at beta 0.1."""
LOSS = {"orpo": "preset trl"}


class LossesDiffer(Exception):
    """Two contenders do not compute the same thing, so their speeds are not compared."""


def first_losses(
    chosen: Mapping[str, Contender], results: Mapping[str, Sequence[Round]], *, dtype: str, objective: str = "orpo"
) -> dict[str, Any]:
    """The first loss of all who took a whole step at once, and the largest difference to ours. Raises LossesDiffer when it is too large.

    Ours is that of the step itself, or where ORPO covers the completion alone, that of a forward pass under preset trl. A step that TRL
    cuts into micro-batches has another loss by design: it averages over the tokens of each micro-batch, or has a baseline for each.
    """
    shown: dict[str, float] = {}
    for name, rounds in results.items():
        if chosen[name].micro_batch is None:
            shown[name] = sum(rounds[0].losses) if rounds[0].trl_loss is None else rounds[0].trl_loss
    differences: list[float] = []
    for is_grouped in (False, True):
        alike = {name: loss for name, loss in shown.items() if chosen[name].is_grouped == is_grouped}
        mine = [loss for name, loss in alike.items() if chosen[name].is_ours]
        differences += [abs(loss - mine[0]) for name, loss in alike.items() if mine and not chosen[name].is_ours]
    tolerance = LOSS_TOLERANCE[dtype] * TIMES_TOLERANCE.get(objective, 1)
    if not all(difference <= tolerance for difference in differences):  # "not <=", so that nan is refused as well
        told = ", ".join(f"{name} {loss:.6f}" for name, loss in shown.items())
        raise LossesDiffer(f"on the first step the losses are {told}: {max(differences):.1e} apart, at most {tolerance:.0e} is allowed")
    worst = max(differences, default=None)  # None: no peer took a whole step at once, so nothing was compared
    return {
        "losses": shown,
        "largest_difference": worst,
        "tolerance": tolerance,
        "loss": f"{LOSS.get(objective, objective)}, initial weights",
    }

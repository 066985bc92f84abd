"""How long each pipeline trains: '300 steps', '2M tokens' or '600 seconds' enters, optimizer steps for each stage leave. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orpo.errors import ConfigError

Kind = Literal["steps", "tokens", "seconds"]

_TEXT = re.compile(r"\s*(?P<amount>\d[\d_,]*(?:\.\d+)?)\s*(?P<scale>[kKM]?)\s*(?P<kind>steps?|tokens?|seconds?)\s*")
_SCALES = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000}


@dataclass(frozen=True, slots=True)
class Budget:
    """What each pipeline may spend in all, over its stages together."""

    kind: Kind
    amount: float

    def __str__(self) -> str:
        return f"{self.amount:,.10g} {self.kind}"

    def share(self, num_stages: int, stage: int) -> float:
        """What stage `stage` (from 0) of `num_stages` may spend; whole steps that are left over go to the first stages."""
        if self.kind != "steps":
            return self.amount / num_stages
        whole, rest = divmod(int(self.amount), num_stages)
        return whole + (stage < rest)


def parsed_budget(value: object, *, where: str) -> Budget:
    """The budget that a text names. Raises ConfigError for anything else."""
    match = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigError(
            f"budget is {value!r}",
            where=where,
            expected="an amount and its unit: 300 steps, 2M tokens, 600 seconds",
            fix="write for example `budget: 300 steps`",
        )
    amount = float(match["amount"].replace("_", "").replace(",", "")) * _SCALES[match["scale"]]
    kind: Kind = next(kind for kind in ("steps", "tokens", "seconds") if match["kind"].removesuffix("s") == kind.removesuffix("s"))
    if amount <= 0 or (kind == "steps" and not amount.is_integer()):
        raise ConfigError(f"budget is {value!r}", where=where, expected="more than nothing, and whole steps")
    return Budget(kind, amount)


def steps_for_tokens(tokens_by_step: Sequence[NDArray[np.int64]], once: int, share: float) -> int:
    """The most steps whose tokens, and `once` before the first of them, are within `share`; 0 where not even one is.

    `tokens_by_step` has a row for each data order (one for each seed), which holds the tokens of each step; the mean over orders counts.
    """
    spent = np.mean([np.cumsum(row) for row in tokens_by_step], axis=0) + once
    return int(np.searchsorted(spent, share, side="right"))


def steps_for_seconds(seconds_per_step: float, once: float, share: float) -> int:
    """The most steps that fit into `share` seconds, `once` of which go before the first; 0 where not even one does."""
    assert seconds_per_step > 0, "a step takes time"
    return max(0, int((share - once) / seconds_per_step))

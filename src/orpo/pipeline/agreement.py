"""How far two models lie apart: rows of token ids enter each, and what they say of the next token is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orpo.runs import names
from orpo.runs.metrics import read_metrics

ROWS = 4
LONGEST = 128
"""Rows and tokens of a row: on a CPU a forward pass of 8B parameters over them takes less than a minute."""

POSITIONS = 32
"""Positions at the end of each row whose logits are kept."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The difference of logits, root mean square, as a share of their spread; and where both find the same token likeliest."""

    difference: float
    same_choice: float
    num_positions: int

    def __str__(self) -> str:
        same = f"the same likeliest token at {percent(self.same_choice)} of {self.num_positions} positions"
        return f"they differ by {percent(self.difference)} of the logits' spread, {same}"


def percent(share: float) -> str:
    """A share for people, to three digits however small."""
    return f"{100 * share:.3g} %"


def agreement(found: Sequence[Tensor], expected: Sequence[Tensor]) -> Agreement:
    """How far the logits `found` lie from `expected`, both [positions, vocabulary] by rows; what is added to all alike is nothing."""
    left, right = (torch.cat([row - row.mean(-1, keepdim=True) for row in rows]) for rows in (found, expected))
    width = min(left.shape[1], right.shape[1])  # a vocabulary may be padded on one side
    left, right = left[:, :width], right[:, :width]
    spread = right.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    difference = float((left - right).square().mean().sqrt() / spread)
    same = float((left.argmax(-1) == right.argmax(-1)).float().mean())
    return Agreement(difference, same, len(left))


def last_logits(body: Any, rows: Sequence[Tensor]) -> list[Tensor]:
    """The logits of the last POSITIONS of each of `rows`, fp32, on the host."""
    with torch.no_grad():
        return [body(input_ids=row[None].to(body.device), use_cache=False).logits[0, -POSITIONS:].float().cpu() for row in rows]


def sample_rows(run_dir: Path, tokenizer: Any) -> tuple[list[Tensor], str]:
    """Token rows to compare models on, and what they are: prompts with answers of the run's samples, else random tokens from a seed."""
    path = run_dir / names.SAMPLES
    texts = [f"{row['prompt']}{row.get('chosen') or ''}" for row in read_metrics(path)] if path.is_file() else []
    rows = [torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][:LONGEST]) for text in texts[:ROWS]]
    rows = [row for row in rows if len(row)]
    if rows:
        return rows, f"{len(rows)} samples of the run"
    ids = np.random.default_rng(0).integers(0, len(tokenizer), size=(4, POSITIONS))
    return list(torch.from_numpy(ids)), "4 rows of random tokens (the run kept no samples)"

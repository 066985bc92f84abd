"""What stands beside the policy's log-probs: those of a reference, and a baseline that is made once for a step. An objective enters, and
leaves as a function of the policy's log-probs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps
from orpo.core.loss import Loss
from orpo.core.records import Reads
from orpo.core.tokens import Examples, TokenizedExample
from orpo.engine.batching import in_order
from orpo.engine.views import Logps, completion_starts, viewed
from orpo.objectives.kto import baseline_of, mismatched_log_ratio
from orpo.training.ranks import in_step
from orpo.training.references import References, Totals

Objective = Callable[..., Loss]
"""An objective of the catalogue, its options set: a function of the policy's log-probs, then the reference's, then the baseline."""

LossOf = Callable[[Logps, slice], Loss]
"""The policy's log-probs of some examples of a batch, and which -> their loss."""


@dataclass(frozen=True, slots=True)
class MismatchedPairs:
    """What a baseline is measured on (training/mismatched.py), and the policy that is measured."""

    policy: Totals
    train: Examples
    held_out: Examples | None


@dataclass(frozen=True, slots=True)
class Beside:
    """What an objective reads: the kind of log-probs, the reference's where it needs them, and what its baseline is measured on.

    Where it `is_scored`, it reads the scores of pairs that a scalar head gives, and no log-probs. Where it learns from the `chosen_alone`,
    training pairs come without their rejected answers.
    """

    reads: Reads = "pairs"
    references: References | None = None
    mismatched: MismatchedPairs | None = None
    is_scored: bool = False
    chosen_alone: bool = False


def loss_beside(
    objective: Objective, reads: Reads, examples: Sequence[TokenizedExample], reference: Tensor | None, baseline: Tensor | None
) -> LossOf:
    """`objective` for the batch `examples`; `reference` [N] holds the reference's sums of all its completions, None where none is read."""
    starts = completion_starts(examples)

    def loss_of(part: Logps, members: slice) -> Loss:
        arguments: list[Any] = [part]
        if reference is not None:
            first, last, _ = members.indices(len(examples))
            arguments.append(viewed(reference[starts[first] : starts[last]], examples[first:last], reads=reads))
        if baseline is not None:
            arguments.append(baseline)
        return objective(*arguments)

    return loss_of


def measured_baseline(
    store: Examples,
    positions: Sequence[int],
    *,
    policy: Totals,
    reference: Totals,
    tokens_at_once: int,
    over_ranks: Callable[[Tensor], Tensor],
) -> Tensor:
    """z0 of the mismatched pairs at `positions` of `store`, and at those that other ranks have: a detached fp64 scalar.

    `over_ranks` sums a tensor over the ranks. Sums and counts are added up, so z0 is the same however the work was cut.
    """
    sums: list[Tensor] = []
    num = cursor = 0
    for batch in in_step(in_order((store[position] for position in positions), tokens_at_once)):
        places = positions[cursor : cursor + len(batch)]
        cursor += len(batch)
        totals = [CompletionLogps(total, torch.ones_like(total)) for total in (policy(batch, places), reference(batch, places))]
        sums.append(mismatched_log_ratio(*totals))
        num += sum(len(example.completions) for example in batch)
    total = torch.stack(sums).sum() if sums else torch.zeros((), dtype=torch.float64)
    summed = over_ranks(torch.stack([total.cpu(), torch.tensor(num, dtype=torch.float64)]))
    return baseline_of(summed[0], int(summed[1]))

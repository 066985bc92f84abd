"""Log-probs to try objectives on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, LabelledLogps, PairLogps, RankedLogps

Leaves = tuple[Tensor, Tensor, Tensor]
Counts = tuple[Sequence[int], Sequence[int], Sequence[int]]


def pairs_from(totals: Leaves, counts: Counts) -> PairLogps:
    """PairLogps of summed log-probs and token counts, each in the order chosen, rejected, prompt."""
    parts = [CompletionLogps(total, torch.tensor(num, dtype=total.dtype)) for total, num in zip(totals, counts, strict=True)]
    return PairLogps(chosen=parts[0], rejected=parts[1], prompt=parts[2])


def from_means(chosen: Tensor, rejected: Tensor) -> PairLogps:
    """PairLogps of one-token completions without a prompt to predict, so that sums are means."""
    ones = [1] * len(chosen)
    return pairs_from((chosen, rejected, torch.zeros_like(chosen)), (ones, ones, [0] * len(chosen)))


@pytest.fixture
def pairs() -> Callable[[Leaves, Counts], PairLogps]:
    return pairs_from


@pytest.fixture
def means() -> Callable[[Tensor, Tensor], PairLogps]:
    return from_means


@pytest.fixture
def eight() -> tuple[Leaves, Counts]:
    """Eight pairs of different lengths, drawn from a fixed seed; the sums carry gradients. The fourth prompt predicts nothing."""
    generator = torch.Generator().manual_seed(11)
    counts = ([3, 1, 7, 2, 5, 4, 9, 1], [2, 6, 1, 4, 4, 8, 3, 2], [4, 2, 1, 0, 6, 3, 5, 2])
    totals = []
    for column in counts:
        per_token = 0.1 + 2 * torch.rand(8, generator=generator, dtype=torch.float64)
        totals.append((-per_token * torch.tensor(column, dtype=torch.float64)).requires_grad_())
    return (totals[0], totals[1], totals[2]), counts


@pytest.fixture
def eight_reference(eight: tuple[Leaves, Counts]) -> tuple[Leaves, Counts]:
    """What a reference model gives the same eight pairs: other sums, without gradients."""
    leaves, counts = eight
    generator = torch.Generator().manual_seed(12)
    moved = [leaf.detach() + torch.randn(8, generator=generator, dtype=torch.float64) for leaf in leaves]
    return (moved[0], moved[1], moved[2]), counts


def labelled_from(totals: Sequence[float] | Tensor, counts: Sequence[int], labels: Sequence[bool]) -> LabelledLogps:
    """LabelledLogps of summed log-probs, token counts and labels."""
    total = torch.as_tensor(totals, dtype=torch.float64)
    return LabelledLogps(CompletionLogps(total, torch.tensor(counts, dtype=torch.float64)), torch.tensor(labels, dtype=torch.bool))


def ranked_from(
    rankings: Sequence[Sequence[float]], counts: Sequence[Sequence[int]], scores: Sequence[Sequence[float]] | None
) -> RankedLogps:
    """RankedLogps of the summed log-probs of each ranking, filled up with zeros; the total is a leaf that carries gradients."""
    width = max(map(len, rankings))

    def filled(rows: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.float64)

    completions = CompletionLogps(filled(rankings).requires_grad_(), filled(counts))
    return RankedLogps(completions, None if scores is None else filled(scores))


@pytest.fixture
def labelled() -> Callable[..., LabelledLogps]:
    return labelled_from


@pytest.fixture
def ranked() -> Callable[..., RankedLogps]:
    return ranked_from

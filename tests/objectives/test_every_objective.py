"""What every loss of the catalogue has to keep, whatever it optimises: sums that add up, right gradients, detached metrics, no rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orpo.core.logps import CompletionLogps, LabelledLogps, PairLogps, PairScores, RankedLogps
from orpo.core.loss import Loss, denominator, step_loss
from orpo.core.tokens import UNITS
from orpo.objectives import OBJECTIVES, bound, needs_baseline, needs_reference, reads

VARIANTS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("orpo", {"nll_over": "prompt+completion", "nll_average": "token", "odds_temperature": 0.3}),
    ("dpo", {"label_smoothing": 0.2}),
    ("ipo", {"logps": "mean", "tau": 0.3}),
    ("kto", {"desirable_weight": 1.3, "undesirable_weight": 0.6}),
    ("ulma", {"nll_average": "token"}),
    ("pro", {"temperature": "one", "nll_logps": "mean", "weight": 0.7}),
    ("reward", {"margin": 0.4, "centring": 0.1}),
)
CASES = [*((name, {}) for name in OBJECTIVES), *VARIANTS]
NAMES = [f"{name}-{'-'.join(map(str, options.values()))}" if options else name for name, options in CASES]
every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)


def logps(*shape: int, seed: int) -> Tensor:
    """Summed log-probs of answers of one to nine tokens."""
    return -0.1 - 6 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lengths(*shape: int, seed: int) -> Tensor:
    return torch.randint(1, 10, shape, generator=torch.Generator().manual_seed(seed)).double()


@dataclass(frozen=True)
class Step:
    """A step of NUM rows: what carries gradients, how the data of some of the rows are made from it, and the counts of all rows."""

    leaves: tuple[Tensor, ...]
    data_of: Callable[[Sequence[Tensor], slice], tuple[Any, ...]]
    counts: Mapping[str, int]


NUM = 8
THERE = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]] * 2).double()
SCORES = torch.tensor([[9.0, 4.0, 3.5, 1.0], [0.7, 0.2, 0.0, 0.0], [3.0, 3.0, 1.0, 0.0], [0.4, 0.3, 0.2, 0.1]] * 2)
DESIRABLE = torch.tensor([True, False, False, True, True, False, True, False])


def pair_step() -> Step:
    nums = [lengths(NUM, seed=seed) for seed in (1, 2, 3)]

    def data_of(totals: Sequence[Tensor], rows: slice) -> tuple[Any, ...]:
        return (PairLogps(*(CompletionLogps(total[rows], num[rows]) for total, num in zip(totals, nums, strict=True))),)

    chosen, prompt = int(nums[0].sum()), int(nums[2].sum())
    counts = {"pairs": NUM, "chosen_tokens": chosen, "prompt_and_chosen_tokens": chosen + prompt}
    return Step(tuple(logps(NUM, seed=seed) for seed in (4, 5, 6)), data_of, counts)


def labelled_step() -> Step:
    num = lengths(NUM, seed=1)

    def data_of(totals: Sequence[Tensor], rows: slice) -> tuple[Any, ...]:
        return (LabelledLogps(CompletionLogps(totals[0][rows], num[rows]), DESIRABLE[rows]),)

    counts = {"completions": NUM, "desirable": 4, "undesirable": 4, "desirable_tokens": int(num[DESIRABLE].sum())}
    return Step((logps(NUM, seed=4),), data_of, counts)


def ranking_step() -> Step:
    num = lengths(NUM, 4, seed=1) * THERE

    def data_of(totals: Sequence[Tensor], rows: slice) -> tuple[Any, ...]:
        return (RankedLogps(CompletionLogps((totals[0] * THERE)[rows], num[rows]), SCORES[rows]),)

    return Step((logps(NUM, 4, seed=4),), data_of, {"rankings": NUM, "chosen_tokens": int(num[:, 0].sum())})


def score_step() -> Step:
    def data_of(scores: Sequence[Tensor], rows: slice) -> tuple[Any, ...]:
        return (PairScores(scores[0][rows], scores[1][rows]),)

    return Step(tuple(logps(NUM, seed=seed) + 3 for seed in (4, 5)), data_of, {"pairs": NUM})


STEPS = {"pairs": pair_step, "labelled": labelled_step, "rankings": ranking_step, "scores": score_step}


def step_of(name: str) -> Step:
    """A step that objective `name` can be computed from, with a reference and a baseline where it needs them."""
    step = STEPS[reads(name)]()

    def data_of(leaves: Sequence[Tensor], rows: slice) -> tuple[Any, ...]:
        data = step.data_of(leaves, rows)
        if needs_reference(name):
            data += step.data_of([logps(*leaf.shape, seed=40 + i) for i, leaf in enumerate(leaves)], rows)
        return (*data, torch.tensor(0.4)) if needs_baseline(name) else data

    return Step(tuple(leaf.requires_grad_() for leaf in step.leaves), data_of, {**dict.fromkeys(UNITS, 0), **step.counts})


def shown(losses: Sequence[Loss], counts: Mapping[str, int]) -> dict[str, float]:
    """The metrics of the micro-batches `losses` of one step."""
    totals: dict[str, float] = {}
    for loss in losses:
        for name, metric in loss.metrics.items():
            share = metric.total.item() / (denominator(counts, metric.unit) if metric.unit else 1)
            totals[name] = totals.get(name, 0.0) + share
    return totals


@every_case
@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, NUM - 1)))
def test_shares_of_any_cut_add_up_to_the_step_in_loss_gradients_and_metrics(name: str, options: Mapping[str, Any], cuts: set[int]) -> None:
    step, objective = step_of(name), bound(name, options)
    whole = objective(*step.data_of(step.leaves, slice(0, NUM)))
    parts = [objective(*step.data_of(step.leaves, slice(*ends))) for ends in pairwise([0, *sorted(cuts), NUM])]
    expected, total = step_loss(whole, step.counts), torch.stack([step_loss(part, step.counts) for part in parts]).sum()
    assert total.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
    options_of_grad = {"allow_unused": True, "materialize_grads": True}
    for left, right in zip(
        torch.autograd.grad(total, step.leaves, **options_of_grad),
        torch.autograd.grad(expected, step.leaves, **options_of_grad),
        strict=True,
    ):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    assert shown(parts, step.counts) == pytest.approx(shown([whole], step.counts), rel=1e-12, abs=1e-12)


@every_case
def test_gradients_are_the_derivatives_of_the_loss(name: str, options: Mapping[str, Any]) -> None:
    step, objective = step_of(name), bound(name, options)

    def whole_step(*leaves: Tensor) -> Tensor:
        return step_loss(objective(*step.data_of(leaves, slice(0, NUM))), step.counts)

    assert torch.autograd.gradcheck(whole_step, step.leaves, eps=1e-6, atol=1e-8, rtol=1e-6)


@every_case
def test_totals_are_fp64_scalars_also_of_fp32_and_metrics_carry_no_gradient(name: str, options: Mapping[str, Any]) -> None:
    step = step_of(name)
    loss = bound(name, options)(*step.data_of([leaf.float() for leaf in step.leaves], slice(0, NUM)))
    assert {(t.total.dtype, t.total.shape, t.total.requires_grad) for t in loss.terms} == {(torch.float64, torch.Size([]), True)}
    assert {(m.total.dtype, m.total.shape, m.total.requires_grad) for m in loss.metrics.values()} == {
        (torch.float64, torch.Size([]), False)
    }
    assert {metric.unit for metric in loss.metrics.values()} <= {*UNITS, ""}


@every_case
def test_a_micro_batch_without_rows_adds_nothing_and_keeps_its_graph(name: str, options: Mapping[str, Any]) -> None:
    step = step_of(name)
    loss = bound(name, options)(*step.data_of(step.leaves, slice(0, 0)))
    share = step_loss(loss, step.counts)
    gradients = torch.autograd.grad(share, step.leaves, allow_unused=True)
    assert share.item() == 0.0
    assert any(gradient is not None for gradient in gradients)
    assert {metric.total.item() for metric in loss.metrics.values()} == {0.0}


@every_case
def test_a_step_of_zero_counts_is_0_and_not_nan(name: str, options: Mapping[str, Any]) -> None:
    step = step_of(name)
    assert step_loss(bound(name, options)(*step.data_of(step.leaves, slice(0, 0))), dict.fromkeys(UNITS, 0)).item() == 0.0


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if needs_reference(name)])
def test_the_reference_and_the_baseline_get_no_gradient_even_where_they_could(name: str) -> None:
    step = step_of(name)
    policy = step.data_of([leaf.detach() for leaf in step.leaves], slice(0, NUM))[0]
    data = step.data_of(step.leaves, slice(0, NUM))
    rest = [torch.tensor(0.4, requires_grad=True)] if needs_baseline(name) else []
    # The leaves stand in the reference's place, and a policy without gradients in the policy's.
    share = step_loss(bound(name, {})(policy, data[0], *rest), step.counts)
    assert not share.requires_grad


@pytest.mark.parametrize("far", [-1e6, -1e3, -1e-9, 0.0])
@every_case
def test_loss_and_gradients_are_finite_for_log_probs_near_and_far(name: str, options: Mapping[str, Any], far: float) -> None:
    step = step_of(name)
    for which in range(len(step.leaves)):
        leaves = [leaf.detach().clone().requires_grad_() for leaf in step.leaves]
        with torch.no_grad():
            leaves[which].flatten()[::2] = far
        loss = bound(name, options)(*step.data_of(leaves, slice(0, NUM)))
        gradients = torch.autograd.grad(step_loss(loss, step.counts), leaves, allow_unused=True, materialize_grads=True)
        assert all(term.total.isfinite() for term in loss.terms)
        assert all(metric.total.isfinite() for metric in loss.metrics.values())
        assert all(gradient.isfinite().all() for gradient in gradients)

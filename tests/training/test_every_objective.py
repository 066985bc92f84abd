"""Every objective through the one trainer: its loss and its step are those of single rows in fp32, beside a reference if it reads one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.loss import step_loss
from orpo.core.tokens import TokenizedExample, unit_counts
from orpo.engine.batching import step_pairs
from orpo.engine.paths import Path as EnginePath
from orpo.engine.plain import row_logps
from orpo.engine.views import completion_starts, logps_of, viewed
from orpo.objectives import OBJECTIVES, bound, needs_baseline, needs_reference, reads
from orpo.training.beside import Beside, MismatchedPairs
from orpo.training.mismatched import Mismatched, first_visit, mismatched_in_steps, mismatched_once
from orpo.training.references import References, live_totals

NAMES = [name for name in OBJECTIVES if reads(name) != "scores"]
NUM, PAIRS_PER_STEP, SEED = 10, 4, 3


def rows_of(body: Any, examples: Sequence[TokenizedExample]) -> torch.Tensor:
    """Sums of completions and prompt of each example, one row at a time, as engine/views.py numbers them."""
    sums = []
    for e in examples:
        rows = [row_logps(body, e.prompt_ids, ids).double() for ids in e.completions]
        own = len(e.prompt_ids) - 1
        sums += [row[own:].sum() for row in rows] + [rows[0][:own].sum()]
    return torch.stack(sums)


def completions_of(body: Any, examples: Sequence[TokenizedExample]) -> torch.Tensor:
    """The sums of completions alone, without gradients."""
    with torch.no_grad():
        sums = rows_of(body, examples)
    keep, position = [], 0
    for e in examples:
        keep += range(position, position + len(e.completions))
        position += len(e.completions) + 1
    return sums[keep]


def beside_for(name: str, body: Any, reference: Any, store: Sequence[TokenizedExample], held_out: Sequence[TokenizedExample]) -> Beside:
    """What `name` reads, by live models."""
    kind: Any = reads(name)
    if not needs_reference(name):
        return Beside(kind)
    live = {"path": EnginePath.SHARED, "dtype": torch.float32}
    references = References.live(live_totals(reference, **live))  # type: ignore[arg-type]
    if not needs_baseline(name):
        return Beside(kind, references)
    train = mismatched_in_steps(store, pairs_per_step=PAIRS_PER_STEP, seed=SEED, num_steps=99, longest=999)
    held = mismatched_once(held_out, seed=SEED, longest=999)
    return Beside(kind, references, MismatchedPairs(live_totals(body, **live), train, held))  # type: ignore[arg-type]


def baseline_by_hand(body: Any, reference: Any, pairs: Sequence[TokenizedExample]) -> torch.Tensor:
    return (completions_of(body, pairs) - completions_of(reference, pairs)).mean().clamp(min=0)


def step_by_hand(
    name: str, body: Any, reference: Any, examples: Sequence[TokenizedExample], pairs: Sequence[TokenizedExample]
) -> torch.Tensor:
    """The loss of one step over `examples`, all at once."""
    given: list[Any] = [logps_of(rows_of(body, examples), examples, reads=reads(name), with_prompt=True)]  # type: ignore[arg-type]
    if needs_reference(name):
        given.append(viewed(completions_of(reference, examples), examples, reads=reads(name)))  # type: ignore[arg-type]
    if needs_baseline(name):
        given.append(baseline_by_hand(body, reference, pairs))
    return step_loss(bound(name, {})(*given), unit_counts(examples))


def visited(store: Sequence[TokenizedExample], step: int) -> list[TokenizedExample]:
    return [store[i] for i in step_pairs(len(store), PAIRS_PER_STEP, seed=SEED, step=step)]


def mismatched_of(pairs: Any, step: int) -> list[TokenizedExample]:
    assert isinstance(pairs, Mismatched)
    return [pairs[visit] for visit in range(first_visit(step, NUM, PAIRS_PER_STEP), first_visit(step + 1, NUM, PAIRS_PER_STEP))]


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_weights_are_those_of_single_rows_over_an_epoch(
    name: str, build: Callable[..., Any], tiny_body: Callable[..., Any], drawn: Callable[..., list[TokenizedExample]]
) -> None:
    """Three steps of 4, 4 and 2 examples, cut into micro-batches; held-out figures before the first."""
    rate = 1e-5 if name == "ipo" else 1e-2  # a squared loss of sums far from its target has gradients in the hundreds
    store, held_out = drawn(NUM, reads(name)), drawn(7, reads(name), seed=1)
    body, reference = tiny_body(), tiny_body(1)
    ours = copy.deepcopy(body)
    beside = beside_for(name, ours, reference, store, held_out)
    trainer = build(ours, bound(name, {}), store, beside=beside, held_out=held_out, optim="sgd", learning_rate=rate)
    trainer.train()
    trainer.model.release()
    history = trainer.state.log_history
    evaluated = next(row["eval_loss"] for row in history if "eval_loss" in row)
    with torch.no_grad():
        held_pairs = [beside.mismatched.held_out[i] for i in range(7)] if beside.mismatched else []
        assert evaluated == pytest.approx(float(step_by_hand(name, body, reference, held_out, held_pairs)), abs=1e-6, rel=1e-6)
    if beside.mismatched:
        assert max(row["kl"] for row in history if "kl" in row) > 1, "a baseline that counts"
    for step, logged in enumerate(row["loss"] for row in history if "loss" in row):
        pairs = mismatched_of(beside.mismatched.train, step) if beside.mismatched else []
        loss = step_by_hand(name, body, reference, visited(store, step), pairs)
        assert logged == pytest.approx(loss.item(), abs=1e-6, rel=1e-6), step
        for parameter, gradient in zip(body.parameters(), torch.autograd.grad(loss, list(body.parameters())), strict=True):
            parameter.data -= rate * gradient
    for (key, found), expected in zip(ours.named_parameters(), body.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6, msg=lambda text, key=key: f"{key}: {text}")


def run(
    build: Callable[..., Any], name: str, body: Any, reference: Any, store: Any, **changes: Any
) -> tuple[list[dict], list[torch.Tensor]]:
    beside = beside_for(name, body, reference, store, store)
    trainer = build(body, bound(name, {}), store, beside=beside, pairs_per_step=8, max_steps=4, **changes)
    trainer.train()
    trainer.model.release()
    return [row for row in trainer.state.log_history if "loss" in row], [parameter.detach() for parameter in body.parameters()]


def test_at_the_first_step_dpo_is_ln_2(
    build: Callable[..., Any], tiny_body: Callable[..., Any], drawn: Callable[..., list[TokenizedExample]]
) -> None:
    rows, _ = run(build, "dpo", tiny_body(), tiny_body(), drawn(8))
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["loss"] < math.log(2) - 0.01


def test_the_reference_is_no_part_of_the_trained_model(
    build: Callable[..., Any], tiny_body: Callable[..., Any], drawn: Callable[..., list[TokenizedExample]]
) -> None:
    reference = tiny_body()
    before = copy.deepcopy(reference)
    run(build, "dpo", tiny_body(), reference, drawn(8))
    assert all(torch.equal(left, right) for left, right in zip(before.parameters(), reference.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_starts_lie_where_completions_do(drawn: Callable[..., list[TokenizedExample]]) -> None:
    examples = drawn(6, "labelled")
    starts = completion_starts(examples)
    assert [end - start for start, end in pairwise(starts)] == [len(e.completions) for e in examples]


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_the_largest_micro_batch_is_rehearsed_with_all_it_reads_and_changes_nothing(
    name: str, build: Callable[..., Any], tiny_body: Callable[..., Any], drawn: Callable[..., list[TokenizedExample]]
) -> None:
    """The last of six steps, each of one micro-batch, is much the largest: it is tried before the second."""
    store = drawn(24, reads(name))
    last = step_pairs(len(store), PAIRS_PER_STEP, seed=SEED, step=5)[0]
    store[last] = replace(store[last], prompt_ids=np.resize(store[last].prompt_ids, 300))
    found = []
    for rehearses in (True, False):
        body = tiny_body()
        beside = beside_for(name, body, tiny_body(1), store, store)
        trainer = build(body, bound(name, {}), store, beside=beside, max_steps=6, tokens_per_micro_batch=999, learning_rate=1e-3)
        trainer.has_rehearsed = not rehearses
        seen: list[int] = []
        trainer.model.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(sum(e.num_tokens for e in inputs[0])))
        trainer.train()
        trainer.model.release()
        assert len(seen) == 6 + rehearses
        assert (seen[1] == max(seen)) == rehearses
        found.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert found[0] == found[1]

"""The fused head against its slow twin: F.linear, scale, soft-cap, log_softmax, gather."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from head_twin import (
    ENDS,
    Calls,
    H,
    M,
    V,
    draw,
    example_loss,
    foretell,
    gradients,
    rows_of,
    same,
    sizes,
    twin,
)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from orpo.engine.head import Head, Hint, token_logps


@pytest.mark.parametrize("rows", [1, 3, 4, 11, 100])
@pytest.mark.parametrize(("bias", "scale", "softcap"), [(False, 1.0, None), (True, 1.0, None), (False, 0.3, None), (True, 2.5, 2.0)])
def test_gradcheck_passes_for_every_kind_of_head_and_chunk(rows: int, bias: bool, scale: float, softcap: float | None) -> None:
    hidden, head, targets = draw(bias=bias, scale=scale, softcap=softcap)

    def logps(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return token_logps(hidden, Head(weight, bias, scale, softcap), targets, chunk_bytes=rows_of(rows))

    inputs = (hidden, head.weight) if head.bias is None else (hidden, head.weight, head.bias)
    assert torch.autograd.gradcheck(logps, inputs)
    torch.testing.assert_close(logps(*inputs), twin(hidden, head, targets))


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize(("bias", "scale", "softcap"), [(False, 1.0, None), (True, 2.5, 2.0)])
def test_gradcheck_passes_for_a_frozen_head(rows: int, bias: bool, scale: float, softcap: float | None) -> None:
    hidden, head, targets = draw(bias=bias, scale=scale, softcap=softcap, trained=False)
    assert torch.autograd.gradcheck(lambda rows_: token_logps(rows_, head, targets, chunk_bytes=rows_of(rows)), (hidden,))


def test_gradcheck_passes_with_tied_weights_used_twice() -> None:
    _, head, targets = draw()
    ids = torch.arange(M) % V

    def logps(weight: Tensor) -> Tensor:
        return token_logps(torch.tanh(weight[ids]), Head(weight), targets, chunk_bytes=rows_of(3))

    assert torch.autograd.gradcheck(logps, (head.weight,))


@pytest.mark.parametrize("rows", [3, 4, 100])
@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_gradcheck_passes_for_a_low_rank_change_to_the_head(rows: int, hinted: bool, trained: bool) -> None:
    hidden, head, targets = draw(trained=trained)
    generator = torch.Generator().manual_seed(5)
    down, up = (torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in ((2, H), (V, 2)))
    hint = Hint(ENDS, foretell) if hinted else None

    def loss(*inputs: Tensor) -> Tensor:
        changed = Head(inputs[1], inputs[2], head.scale, head.softcap, (inputs[3], inputs[4]))
        return example_loss(token_logps(inputs[0], changed, targets, chunk_bytes=rows_of(rows), hint=hint), 0, M)

    assert head.bias is not None
    inputs = (hidden, head.weight, head.bias, down, up)
    assert torch.autograd.gradcheck(loss, inputs)
    changed = Head(head.weight, head.bias, head.scale, head.softcap, (down, up))
    torch.testing.assert_close(loss(*inputs), example_loss(twin(hidden, changed, targets), 0, M))


def test_a_frozen_low_rank_change_leaves_only_the_rows_to_differentiate() -> None:
    hidden, head, targets = draw(trained=False)
    frozen = Head(head.weight, head.bias, low_rank=(torch.ones(2, H, dtype=torch.float64), torch.ones(V, 2, dtype=torch.float64)))
    fused = gradients(token_logps(hidden, frozen, targets, chunk_bytes=rows_of(4)).sum(), hidden, head)
    same(fused, gradients(twin(hidden, frozen, targets).sum(), hidden, head))


@pytest.mark.parametrize("wanted", [(True, False, True), (False, True, False), (False, False, True), (True, True, False)])
@pytest.mark.parametrize("hinted", [False, True])
def test_only_what_requires_gradients_gets_them(wanted: tuple[bool, bool, bool], hinted: bool) -> None:
    hidden, head, targets = draw()
    for leaf, want in zip((hidden, head.weight, head.bias), wanted, strict=True):
        assert leaf is not None
        leaf.requires_grad_(want)
    hint = Hint(ENDS, foretell) if hinted else None
    fused = gradients(example_loss(token_logps(hidden, head, targets, chunk_bytes=rows_of(4), hint=hint), 0, M), hidden, head)
    same(fused, gradients(example_loss(twin(hidden, head, targets), 0, M), hidden, head))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [4, 5, 11, 100])
def test_a_right_hint_gives_the_twins_gradients_without_a_product_in_backward(dtype: torch.dtype, rows: int) -> None:
    hidden, head, targets = draw(dtype)
    calls = Calls()
    loss = example_loss(token_logps(hidden, head, targets, chunk_bytes=rows_of(rows, dtype), hint=Hint(ENDS, calls)), 0, M)
    with sizes() as seen:
        fused = gradients(loss, hidden, head)
    assert seen.num_products == 0
    assert all(end in ENDS and (start == 0 or start in ENDS) and end - start <= rows for start, end in calls.spans)
    assert [start for start, _ in calls.spans] == [0, *(end for _, end in calls.spans[:-1])]
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    same(fused, gradients(example_loss(twin(hidden, head, targets), 0, M), hidden, head), **tolerance)


@pytest.mark.parametrize("ratio", [-2.0, 0.25, 65536.0, 1e-12, 0.0])
def test_a_hint_holds_up_to_any_one_ratio(ratio: float) -> None:
    hidden, head, targets = draw()
    loss = ratio * example_loss(token_logps(hidden, head, targets, chunk_bytes=rows_of(4), hint=Hint(ENDS, foretell)), 0, M)
    with sizes() as seen:
        fused = gradients(loss, hidden, head)
    assert seen.num_products == 0
    same(fused, gradients(ratio * example_loss(twin(hidden, head, targets), 0, M), hidden, head), rtol=1e-9, atol=1e-9 * abs(ratio))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda logps, start, end: torch.zeros_like(logps),
        lambda logps, start, end: torch.ones_like(logps),
        lambda logps, start, end: foretell(logps, start, end) * (1 + 1e-4 * torch.arange(start, end)),
        lambda logps, start, end: torch.full_like(logps, float("nan")),
    ],
    ids=["zero", "constant", "slightly off", "nan"],
)
def test_a_wrong_hint_is_noticed_and_the_gradients_are_still_exact(wrong: Callable[[Tensor, int, int], Tensor]) -> None:
    hidden, head, targets = draw()
    loss = example_loss(token_logps(hidden, head, targets, chunk_bytes=rows_of(4), hint=Hint(ENDS, wrong)), 0, M)
    with sizes() as seen:
        fused = gradients(loss, hidden, head)
    assert seen.num_products > 0
    same(fused, gradients(example_loss(twin(hidden, head, targets), 0, M), hidden, head))


def test_all_zero_coefficients_and_a_zero_loss_give_zero_gradients_without_recomputing() -> None:
    hidden, head, targets = draw()
    logps = token_logps(hidden, head, targets, chunk_bytes=rows_of(4), hint=Hint(ENDS, lambda logps, start, end: 0 * logps))
    with sizes() as seen:
        fused = gradients((0 * logps).sum(), hidden, head)
    assert seen.num_products == 0
    assert all(not grad.any() for grad in fused)


def test_an_example_longer_than_a_chunk_takes_the_recomputing_path_for_all() -> None:
    hidden, head, targets = draw()
    calls = Calls()
    loss = example_loss(token_logps(hidden, head, targets, chunk_bytes=rows_of(3), hint=Hint(ENDS, calls)), 0, M)
    assert calls.spans == []
    same(gradients(loss, hidden, head), gradients(example_loss(twin(hidden, head, targets), 0, M), hidden, head))


def test_a_second_backward_over_a_retained_graph_gives_the_same_gradients() -> None:
    hidden, head, targets = draw()
    loss = 3 * example_loss(token_logps(hidden, head, targets, chunk_bytes=rows_of(4), hint=Hint(ENDS, foretell)), 0, M)
    loss.backward(retain_graph=True)
    once = [leaf.grad.clone() for leaf in (hidden, head.weight, head.bias)]  # type: ignore[union-attr]
    loss.backward()
    same([leaf.grad for leaf in (hidden, head.weight, head.bias)], [2 * grad for grad in once])  # type: ignore[union-attr, misc]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("hinted", [False, True])
def test_no_rows_give_no_log_probs_and_zero_gradients(trained: bool, hinted: bool) -> None:
    _, head, _ = draw(trained=trained)
    hidden = torch.zeros(0, H, dtype=torch.float64, requires_grad=True)
    hint = Hint([], foretell) if hinted else None
    logps = token_logps(hidden, head, torch.zeros(0, dtype=torch.long), chunk_bytes=1, hint=hint)
    assert logps.shape == (0,)
    grads = gradients(logps.sum(), hidden, head)
    assert grads[0].shape == (0, H)
    assert len(grads) == (3 if trained else 1)
    assert all(not grad.any() for grad in grads)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("hinted", [False, True])
def test_non_reentrant_checkpointing_changes_nothing(trained: bool, hinted: bool) -> None:
    hidden, head, targets = draw(trained=trained)
    hint = Hint(ENDS, foretell) if hinted else None

    def logps(hidden: Tensor) -> Tensor:
        return token_logps(torch.tanh(hidden), head, targets, chunk_bytes=rows_of(4), hint=hint)

    loss = example_loss(checkpoint(logps, hidden, use_reentrant=False), 0, M)
    same(gradients(loss, hidden, head), gradients(example_loss(twin(torch.tanh(hidden), head, targets), 0, M), hidden, head))

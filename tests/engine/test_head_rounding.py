"""The fused head in fp32, bf16 and fp16, and what it keeps alive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from head_twin import (
    DEVICES,
    ENDS,
    HUGE,
    draw,
    gradients,
    rows_of,
    same,
    sizes,
    twin,
)
from torch import Tensor

from orpo.engine.head import Head, Hint, token_logps
from orpo.engine.head_chunks import even_spans, whole_spans


def wide(dtype: torch.dtype, *, trained: bool, softcap: float | None = None) -> tuple[Tensor, Head, Tensor]:
    """Rows as a trained model has them: some targets nearly certain, some hopeless."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(96, 64, generator=generator)
    weight = torch.randn(700, 64, generator=generator) * 0.3
    targets = torch.randint(700, (96,), generator=generator)
    hidden[:32] += 3 * weight[targets[:32]]
    return hidden.to(dtype).requires_grad_(), Head(weight.to(dtype).requires_grad_(trained), softcap=softcap), targets


@pytest.mark.parametrize("softcap", [None, 20.0])
def test_fp32_agrees_with_the_twin_to_1e_minus_6(softcap: float | None) -> None:
    hidden, head, targets = wide(torch.float32, trained=True, softcap=softcap)
    fused, plain = token_logps(hidden, head, targets, chunk_bytes=7 * 700 * 4), twin(hidden, head, targets)
    assert fused.dtype == torch.float32
    assert ((fused - plain).abs() <= 1e-6 * plain.abs().clamp_min(1)).all()
    weights = torch.linspace(-1, 1, 96)
    for one, other in zip(gradients((weights * fused).sum(), hidden, head), gradients((weights * plain).sum(), hidden, head), strict=True):
        assert (one - other).abs().max() <= 1e-6 * other.abs().max()


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("kind", ["frozen", "recomputed", "hinted"])
@pytest.mark.parametrize("softcap", [None, 20.0])
@pytest.mark.parametrize("device", DEVICES)
def test_bf16_errs_no_more_than_the_twin_in_bf16(autocast: bool, kind: str, softcap: float | None, device: str) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    hidden, head, targets = wide(dtype, trained=kind != "frozen", softcap=softcap)
    targets, weights = targets.to(device), torch.linspace(-1, 1, 96, device=device)
    hint = Hint(list(range(4, 97, 4)), lambda logps, start, end: weights[start:end]) if kind == "hinted" else None

    def run(logps_of: Callable[[Tensor, Head, Tensor], Tensor], precise: bool = False) -> list[Tensor]:
        kind_of = torch.float64 if precise else dtype
        rows = hidden.detach().to(device, kind_of).requires_grad_()
        own = Head(head.weight.detach().to(device, kind_of).requires_grad_(head.weight.requires_grad), softcap=softcap)
        with torch.autocast(device, torch.bfloat16, enabled=autocast and not precise):
            logps = logps_of(rows, own, targets)
        grads = gradients((weights * logps).sum(), rows, own)
        assert all(grad.dtype == kind_of for grad in grads)
        return [logps.detach(), *grads]

    truth = run(twin, precise=True)
    plain = run(twin)
    fused = run(lambda rows, own, targets: token_logps(rows, own, targets, chunk_bytes=9 * 700 * 4, hint=hint))
    assert fused[0].dtype == torch.float32
    for exact, ours, theirs in zip(truth, fused, plain, strict=True):
        assert (ours - exact).norm() <= 1.2 * (theirs - exact).norm()


def test_a_nearly_certain_target_keeps_its_small_log_prob_in_bf16() -> None:
    hidden, head, targets = wide(torch.bfloat16, trained=False)
    truth = twin(hidden.double(), Head(head.weight.double()), targets)[:32]
    ours = token_logps(hidden, head, targets, chunk_bytes=HUGE)[:32]
    theirs = twin(hidden, head, targets)[:32]
    assert (truth > -0.05).any()
    assert (ours - truth).abs().max() <= 0.5 * (theirs - truth).abs().max()


@pytest.mark.parametrize("hinted", [False, True])
def test_fp16_keeps_gradients_of_small_coefficients(hinted: bool) -> None:
    hidden, head, targets = wide(torch.float16, trained=True)
    weight = 1e-7
    hint = Hint([48, 96], lambda logps, start, end: torch.full_like(logps, weight)) if hinted else None
    logps = token_logps(hidden, head, targets, chunk_bytes=HUGE, hint=hint)
    scaler = 65536.0
    ours = torch.autograd.grad(scaler * weight * logps.sum(), [hidden, head.weight])
    rows, exact = hidden.detach().double().requires_grad_(), Head(head.weight.detach().double().requires_grad_())
    truth = torch.autograd.grad(scaler * weight * twin(rows, exact, targets).sum(), [rows, exact.weight])
    for one, other in zip(ours, truth, strict=True):
        assert one.dtype == torch.float16
        assert (one - other).norm() <= 5e-3 * other.norm()


@pytest.mark.parametrize("kind", ["no_grad", "frozen", "recomputed", "hinted", "wrong hint", "long example"])
@pytest.mark.parametrize("autocast", [False, True])
def test_no_tensor_of_tokens_times_vocabulary_is_ever_alive(kind: str, autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, vocabulary, width, rows = 60, 500, 8, 6
    hidden = torch.randn(tokens, width, generator=generator).requires_grad_(kind != "no_grad")
    head = Head(torch.randn(vocabulary, width, generator=generator).requires_grad_(kind not in {"no_grad", "frozen"}), softcap=5.0)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    hints = {
        "hinted": Hint(list(range(3, tokens + 1, 3)), lambda logps, start, end: torch.ones_like(logps)),
        "wrong hint": Hint(list(range(3, tokens + 1, 3)), lambda logps, start, end: logps),
        "long example": Hint([tokens], lambda logps, start, end: torch.ones_like(logps)),
    }
    with sizes() as seen, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logps = token_logps(hidden, head, targets, chunk_bytes=rows * vocabulary * 4, hint=hints.get(kind))
        if kind != "no_grad":
            gradients(logps.sum(), hidden, head)
    # The weight and its gradient are [V, H]; a chunk is [rows, V].
    assert seen.largest <= max(rows, width) * vocabulary


def test_nothing_is_kept_without_gradients() -> None:
    hidden, head, targets = draw()
    with torch.no_grad():
        logps = token_logps(hidden, head, targets, chunk_bytes=rows_of(3))
    assert logps.grad_fn is None
    torch.testing.assert_close(logps, twin(hidden, head, targets).detach())


def test_hidden_rows_may_be_a_view_with_strides() -> None:
    hidden, head, targets = draw()
    strided = torch.stack([hidden, 2 * hidden], dim=-1)[..., 1]
    fused = gradients(token_logps(strided, head, targets, chunk_bytes=rows_of(4)).sum(), hidden, head)
    same(fused, gradients(twin(2 * hidden, head, targets).sum(), hidden, head))


def test_spans_cover_all_rows_evenly_or_in_whole_examples() -> None:
    assert even_spans(11, 4) == [(0, 3), (3, 7), (7, 11)]
    assert even_spans(8, 4) == [(0, 4), (4, 8)]
    assert even_spans(3, 100) == [(0, 3)]
    assert even_spans(0, 4) == []
    assert whole_spans(ENDS, 4) == [(0, 3), (3, 7), (7, 11)]
    assert whole_spans(ENDS, 7) == [(0, 7), (7, 11)]
    assert whole_spans(ENDS, 3) is None
    assert whole_spans([], 3) == []

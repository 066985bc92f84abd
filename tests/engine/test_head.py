"""The fused head against its slow twin: F.linear, scale, soft-cap, log_softmax, gather."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from orpo.engine.head import Head, Hint, token_logps
from orpo.engine.head_chunks import even_spans, whole_spans

M, V, H = 11, 13, 5
ENDS = [2, 3, 7, 11]
HUGE = 1 << 30
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, NO_CUDA])]


def twin(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    logits = F.linear(hidden, head.weight, head.bias)
    if head.low_rank is not None:
        logits = logits + F.linear(F.linear(hidden, head.low_rank[0]), head.low_rank[1])
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)


def rows_of(count: int, dtype: torch.dtype = torch.float64) -> int:
    return count * V * (8 if dtype == torch.float64 else 4)


def draw(
    dtype: torch.dtype = torch.float64, *, bias: bool = True, scale: float = 0.7, softcap: float | None = 3.0, trained: bool = True
) -> tuple[Tensor, Head, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    hidden = normal(M, H).requires_grad_()
    head = Head(normal(V, H).requires_grad_(trained), normal(V).requires_grad_(trained) if bias else None, scale, softcap)
    targets = torch.randint(V, (M,), generator=generator)
    targets[0], targets[1] = 0, V - 1
    return hidden, head, targets


def example_loss(logps: Tensor, start: int, end: int) -> Tensor:
    """A loss that is a sum over examples, each a curved function of the sum of its log-probs."""
    total = logps.new_zeros(())
    for a, b in itertools.pairwise([0, *ENDS]):
        if start <= a and b <= end:
            total = total + torch.sin(logps[a - start : b - start].sum()) * (a + 1)
    return total


def foretell(logps: Tensor, start: int, end: int) -> Tensor:
    with torch.enable_grad():
        leaf = logps.detach().clone().requires_grad_()
        return torch.autograd.grad(example_loss(leaf, start, end), leaf)[0]


class Calls:
    """A hint's coefficients, counted."""

    def __init__(self, coefficients: Callable[[Tensor, int, int], Tensor] = foretell) -> None:
        self.coefficients, self.spans = coefficients, []  # type: ignore[var-annotated]

    def __call__(self, logps: Tensor, start: int, end: int) -> Tensor:
        assert not logps.requires_grad
        self.spans.append((start, end))
        return self.coefficients(logps, start, end)


class Sizes(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned, and the number of products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.num_products = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.num_products += func.overloadpacket.__name__ in {"mm", "addmm", "addmm_"}
        self.largest = max([self.largest, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))])
        return result


@contextmanager
def sizes() -> Iterator[Sizes]:
    with Sizes() as seen:
        yield seen


def gradients(loss: Tensor, hidden: Tensor, head: Head) -> list[Tensor]:
    leaves = [leaf for leaf in (hidden, head.weight, head.bias) if leaf is not None and leaf.requires_grad]
    return list(torch.autograd.grad(loss, leaves))


def same(left: list[Tensor], right: list[Tensor], **tolerance: float) -> None:
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


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

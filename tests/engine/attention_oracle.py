"""Attention over a pack from first principles, in fp64: what every kernel is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from orpo.engine.layout import Layout, PackedExample

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """Shapes and options of one attention."""

    sizes: tuple[tuple[int, tuple[int, ...]], ...]
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    scale: float = 0.4

    @property
    def layout(self) -> Layout:
        return layout_of(self.sizes)


def layout_of(sizes: Sequence[tuple[int, Sequence[int]]]) -> Layout:
    """The layout of examples given as (prefix, lengths of branches)."""
    examples, start = [], 0
    for prefix, branches in sizes:
        examples.append(PackedExample(start, prefix, tuple(branches)))
        start += prefix + sum(branches)
    return Layout(tuple(examples))


def sees(layout: Layout, window: int | None = None) -> Tensor:
    """Row i sees row j: same example, j not after i, j in the prefix or in i's branch, i - j < window. Bool [T, T]."""
    places = []
    for index, example in enumerate(layout.examples):
        places += [(index, None, position) for position in range(example.prefix)]
        for branch, own in enumerate(example.branches):
            places += [(index, branch, example.prefix + offset) for offset in range(own)]
    mask = torch.zeros(len(places), len(places), dtype=torch.bool)
    for i, (example_i, branch_i, position_i) in enumerate(places):
        for j, (example_j, branch_j, position_j) in enumerate(places):
            near = window is None or position_i - position_j < window
            mask[i, j] = example_i == example_j and branch_j in (None, branch_i) and position_j <= position_i and near
    return mask


def dense(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, case: Case, sinks: Tensor | None) -> Tensor:
    """Attention [1, T, heads, D] in fp64 by a softmax written out."""
    query, key, value = (tensor.double() for tensor in (query, key, value))
    key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * case.scale
    if case.softcap is not None:
        scores = case.softcap * torch.tanh(scores / case.softcap)
    weights = torch.exp(scores) * mask.to(scores.device)
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + torch.exp(sinks.double())[None, :, None, None]
    return (weights / total @ value).transpose(1, 2)


def inputs(case: Case, *, seed: int = 0, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    """Query, key, value (and sinks, if any), with gradients asked for; laid out in memory as a model does."""
    generator = torch.Generator().manual_seed(seed)
    num_rows = case.layout.num_rows
    shapes = [(1, num_rows, heads, case.head_dim) for heads in (case.heads, case.kv_heads, case.kv_heads)]
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64).transpose(1, 2) for shape in shapes]
    if case.sinks:
        tensors.append(torch.randn(case.heads, generator=generator, dtype=torch.float64))
    return [tensor.to(device=device, dtype=dtype).requires_grad_() for tensor in tensors]


def values_and_gradients(attention: Callable[..., Tensor], tensors: Sequence[Tensor], *, seed: int = 1) -> list[Tensor]:
    """The output of `attention(*tensors)`, and the gradients to each of `tensors` from a random gradient of the output."""
    out = attention(*tensors)
    incoming = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(out)
    return [out.detach(), *torch.autograd.grad(out, tensors, incoming)]


def expected(case: Case, tensors: Sequence[Tensor]) -> list[Tensor]:
    """`values_and_gradients` of the oracle."""
    mask = sees(case.layout, case.window)
    return values_and_gradients(lambda q, k, v, s=None: dense(q, k, v, mask, case, s), tensors)


def assert_as_oracle(attention: Callable[..., Tensor], case: Case, *, tolerance: float = 1e-10) -> None:
    """`attention(query, key, value, layout, scale=, window=, softcap=, sinks=)` gives the oracle's values and gradients, in fp64."""
    tensors = inputs(case)

    def attend(query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None = None) -> Tensor:
        options = {"scale": case.scale, "window": case.window, "softcap": case.softcap, "sinks": sinks}
        return attention(query, key, value, case.layout, **options)

    for got, want in zip(values_and_gradients(attend, tensors), expected(case, tensors), strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


ONE_PAIR = ((5, (3, 4)),)
SEVERAL = ((5, (3, 4)), (1, (1, 1)), (7, (2, 9)), (2, (6, 1)))

PLAIN_CASES = {
    "one pair": Case(ONE_PAIR),
    "several pairs": Case(SEVERAL),
    "one head for all": Case(SEVERAL, kv_heads=1),
    "no grouping of heads": Case(SEVERAL, kv_heads=4),
    "single-token prefix and branches": Case(((1, (1, 1)),)),
    "unshared": Case(((0, (6, 4)), (0, (1, 8)))),
    "one branch": Case(((4, (3,)), (0, (2,)))),
    "three branches": Case(((4, (3, 1, 5)), (2, (2, 2, 2)))),
    "window of the token alone": Case(SEVERAL, window=1),
    "window smaller than branches": Case(SEVERAL, window=2),
    "window smaller than prefixes": Case(((9, (2, 3)), (8, (1, 2))), window=4),
    "window as long as the longest": Case(SEVERAL, window=16),
    "window larger than everything": Case(SEVERAL, window=1000),
    "window over unshared rows": Case(((0, (6, 4)), (0, (1, 8))), window=3),
    "window with three branches": Case(((4, (3, 1, 5)), (2, (2, 2, 2))), window=3),
}

SCORE_CASES = {
    "soft-cap": Case(SEVERAL, softcap=0.7),
    "soft-cap in a window": Case(SEVERAL, softcap=0.7, window=3),
    "sinks": Case(SEVERAL, sinks=True),
    "sinks in a window": Case(SEVERAL, sinks=True, window=3),
    "soft-cap and sinks": Case(((4, (3, 1, 5)), (0, (2, 2, 2))), softcap=2.0, sinks=True, kv_heads=1),
}

PREFIX_AND_BRANCHES = st.tuples(st.integers(0, 7), st.lists(st.integers(1, 6), min_size=1, max_size=3))
LAYOUTS = st.lists(PREFIX_AND_BRANCHES, min_size=1, max_size=3).map(lambda sizes: tuple((p, tuple(b)) for p, b in sizes))
CASES = st.builds(Case, LAYOUTS, window=st.none() | st.integers(1, 14), kv_heads=st.sampled_from([1, 2, 4]))

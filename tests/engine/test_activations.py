"""Activations that are shared or made again: the same values and gradients, in less memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orpo.engine.memory_trace import LiveBytes
from orpo.engine.remade import remade_activations
from orpo.engine.shared_casts import SharedCasts


def norm_and_gate(rows: Tensor, weight: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """A norm and a gated product as Llama has them."""
    normed = weight * (rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + 1e-6))
    return activation(normed) * (normed + 1)


def both_ways(make: Callable[[], tuple[Tensor, list[Tensor]]]) -> tuple[list[Tensor], list[Tensor], int, int]:
    """Value and gradients kept as autograd keeps them, and made again; and the bytes alive after each forward pass."""
    found: list[Any] = []
    for context in (nullcontext(), remade_activations()):
        torch.manual_seed(0)
        live = LiveBytes([])
        with live, context:
            value, leaves = make()
        held = live.now
        found.append(([value.detach(), *torch.autograd.grad(value.sum(), leaves)], held))
    return found[0][0], found[1][0], found[0][1], found[1][1]


ACTIVATIONS = {"silu": F.silu, "gelu": F.gelu, "gelu tanh": lambda given: F.gelu(given, approximate="tanh")}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_is_made_again_has_the_same_bits(name: str) -> None:
    def make() -> tuple[Tensor, list[Tensor]]:
        rows, weight = torch.randn(64, 32, requires_grad=True), torch.randn(32, requires_grad=True)
        return norm_and_gate(rows, weight, ACTIVATIONS[name]), [rows, weight]

    kept, again, held, lean = both_ways(make)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    assert held - lean >= 2 * 64 * 32 * 4, "the norm's product and the activation's value are not held"


def test_a_product_of_products_keeps_what_would_have_to_be_made_from_something_made_again() -> None:
    def make() -> tuple[Tensor, list[Tensor]]:
        leaves = [torch.randn(16, 8, requires_grad=True) for _ in range(5)]
        value = leaves[0]
        for leaf in leaves[1:]:
            value = value * leaf
        return value, leaves

    kept, again, held, lean = both_ways(make)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    assert lean < held


def test_products_with_a_number_a_broadcast_or_another_dtype_stay_right() -> None:
    def make() -> tuple[Tensor, list[Tensor]]:
        left, right = torch.randn(4, 1, requires_grad=True), torch.randn(3, dtype=torch.bfloat16, requires_grad=True)
        value = (left * right) * (left * 2.0)
        return (value * value).to(torch.float64) * torch.ones(2, 4, 3, dtype=torch.float64), [left, right]

    kept, again, *_ = both_ways(make)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


class Attention(nn.Module):
    """Three projections of one input, and one of another."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.out(self.query(rows) * self.key(rows) + self.value(rows))
        return out


def test_layers_that_read_the_same_rows_share_one_cast_with_the_same_values() -> None:
    torch.manual_seed(0)
    model, rows = Attention(), torch.randn(5, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(rows)
    casts = SharedCasts()
    hooks = casts.attach(model)
    seen: list[Tensor] = []
    for layer in (model.query, model.key, model.value):
        layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        shared = model(rows)
    assert torch.equal(plain, shared)
    assert seen[0] is seen[1] is seen[2]
    for one, other in zip(*(torch.autograd.grad(out.float().sum(), [rows, *model.parameters()]) for out in (plain, shared)), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-3)
    for hook in hooks:
        hook.remove()


def test_a_cast_is_not_shared_after_its_rows_have_changed_or_in_another_grad_mode() -> None:
    model, rows = nn.Linear(4, 4, bias=False), torch.ones(2, 4)
    SharedCasts().attach(model)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(rows)
        rows.add_(1)
        assert torch.equal(model(rows), 2 * before)
        leaf = torch.ones(2, 4, requires_grad=True)
        with torch.no_grad():
            model(leaf)
        model(leaf).float().sum().backward()
    assert leaf.grad is not None


def test_without_autocast_nothing_is_cast() -> None:
    model, rows = nn.Linear(4, 4), torch.ones(2, 4)
    plain = model(rows)
    SharedCasts().attach(model)
    assert torch.equal(model(rows), plain)


def test_a_forgotten_cast_is_released() -> None:
    casts, model = SharedCasts(), nn.Linear(4, 4)
    casts.attach(model)
    live = LiveBytes([*model.parameters()])
    with live, torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        rows = torch.ones(2, 4)
        model(rows)
        held = live.now
        casts.forget()
        gc.collect()
        assert live.now == held - 2 * 4 * 2

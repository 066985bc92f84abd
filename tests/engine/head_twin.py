"""The slow twin of the fused head, and what the tests of both halves share."""

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

from orpo.engine.head import Head

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

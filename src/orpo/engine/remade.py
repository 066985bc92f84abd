"""What cheap elementwise operations give is not kept for the backward pass but made again there, from what they keep themselves.

Of a norm's x * rstd, and of an activation function's value, autograd keeps both the result (the next operation needs it) and the inputs
(the operation itself needs them): a fifth of a Llama layer's activations. The same operation on the same inputs gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Remade:
    """A result that can be made again: `make(*inputs)`."""

    __slots__ = ("inputs", "make")

    def __init__(self, make: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self.make, self.inputs = make, inputs


def _product(node: Any) -> tuple[Callable[..., Tensor], tuple[Tensor | None, ...]]:
    return torch.mul, (node._saved_self, node._saved_other)


def _silu(node: Any) -> tuple[Callable[..., Tensor], tuple[Tensor | None, ...]]:
    return F.silu, (node._saved_self,)


def _gelu(node: Any) -> tuple[Callable[..., Tensor], tuple[Tensor | None, ...]]:
    approximate = node._saved_approximate
    return lambda given: F.gelu(given, approximate=approximate), (node._saved_self,)


CHEAP: Mapping[str, Callable[[Any], tuple[Callable[..., Tensor], tuple[Tensor | None, ...]]]] = {
    "MulBackward0": _product,
    "SiluBackward0": _silu,
    "GeluBackward0": _gelu,
}
"""Node of autograd -> how its result is made, and from which of its own saved inputs: None for what it did not save."""


def remade_activations() -> AbstractContextManager[Any]:
    """While it lasts, results of CHEAP operations are made again in the backward pass in place of being kept. Values and gradients stay.

    It touches only what autograd saves outside of gradient checkpointing, which has hooks of its own.
    """
    hooks = Hooks()
    return torch.autograd.graph.saved_tensors_hooks(hooks.pack, hooks.unpack)


class Hooks:
    """What autograd calls with a tensor that it would keep, and with what was kept in its place."""

    def __init__(self) -> None:
        self.num_remade = 0

    def pack(self, tensor: Tensor) -> Tensor | Remade:
        """`tensor`, or how it is made again."""
        node = tensor.grad_fn
        cheap = CHEAP.get(node.name()) if node is not None else None
        if cheap is None:
            return tensor
        before = self.num_remade
        make, saved = cheap(node)
        # An input that is itself made again would now be held by this result: nothing is gained, so the result is kept.
        if self.num_remade != before or any(part is None for part in saved):
            return tensor
        inputs = tuple(part.detach() for part in saved if part is not None)
        return Remade(make, inputs) if _gives(inputs, tensor) else tensor

    def unpack(self, kept: Tensor | Remade) -> Tensor:
        """What was given to `pack`."""
        if isinstance(kept, Tensor):
            return kept
        self.num_remade += 1
        return kept.make(*kept.inputs)


def _gives(inputs: tuple[Tensor, ...], result: Tensor) -> bool:
    """Whether an elementwise operation on `inputs` has the shape and dtype of `result`."""
    dtype = inputs[0].dtype if len(inputs) == 1 else torch.result_type(*inputs)
    shapes: Any = torch.broadcast_shapes  # untyped in torch
    return dtype == result.dtype and bool(shapes(*(part.shape for part in inputs)) == result.shape)

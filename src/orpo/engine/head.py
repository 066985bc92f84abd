"""The fused head: hidden rows and targets enter, log-probabilities leave, and no [tokens, vocabulary] tensor is ever alive.

How its gradients are made is chosen here, all ways exact: in the forward pass for a frozen head and for a head with a fitting `Hint`,
else by computing each chunk again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from orpo.engine.head_chunks import Chunk, ChunkedHead, Shape, even_spans, whole_spans

RATIO_TOLERANCE = 1e-6
"""How far, relative to the largest, incoming gradients may be from a multiple of the hint's: a few fp32 roundings."""


@dataclass(frozen=True, slots=True)
class Head:
    """What turns hidden rows into logits: softcap(scale * (x W^T + (x down^T) up^T + bias)), with softcap(z) = c tanh(z / c)."""

    weight: Tensor  # [V, H]
    bias: Tensor | None = None  # [V]
    scale: float = 1.0
    softcap: float | None = None
    low_rank: tuple[Tensor, Tensor] | None = None  # down [r, H] and up [V, r]: an adapter on the head


@dataclass(frozen=True, slots=True)
class Hint:
    """What lets a trained head make its gradients in the forward pass: the loss as a function of whole examples' log-probs.

    `ends`: row offsets at which examples end, increasing, the last one the number of rows.
    `coefficients(logps, a, b)`: d loss / d logps of rows a:b, from their log-probs; a and b are 0 or in `ends`. Called without gradients
    (torch.enable_grad inside it where it needs them), possibly more than once for the same rows; it must change nothing.
    """

    ends: Sequence[int]
    coefficients: Callable[[Tensor, int, int], Tensor]


def token_logps(hidden: Tensor, head: Head, targets: Tensor, *, chunk_bytes: int, hint: Hint | None = None) -> Tensor:
    """Log-probabilities [M] of `targets` [M] given `hidden` [M, H], in nats, fp32 (fp64 for fp64 inputs).

    One chunk's logits take at most `chunk_bytes` in fp32, and at least one row. A hint saves the second product in the backward pass where
    every example fits a chunk; the result is exact whatever the hint says. The product runs in autocast's dtype, else in the operands'.
    """
    assert hidden.ndim == 2, "hidden rows are [M, H]"
    assert targets.shape == hidden.shape[:1], "one target per row"
    assert hint is None or (hint.ends[-1] if hint.ends else 0) == len(hidden), "the hint's last end is the number of rows"
    shape = _shape(hidden, head, chunk_bytes)
    rows, up = hidden, None
    if head.low_rank is not None:
        down, up = head.low_rank
        rows = torch.cat([hidden, F.linear(hidden.to(down.dtype), down).to(hidden.dtype)], dim=1)
    trained = any(part is not None and part.requires_grad for part in (head.weight, up, head.bias))
    function: Any
    if not torch.is_grad_enabled() or not (trained or rows.requires_grad):
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            return _forward(_chunked(rows, head.weight, up, head.bias, shape), rows, targets)
    if not trained:
        function = _FrozenHead
        return function.apply(rows, head.weight, up, head.bias, targets, shape)  # type: ignore[no-any-return]
    function = _TrainedHead
    return function.apply(rows, head.weight, up, head.bias, targets, shape, hint)  # type: ignore[no-any-return]


def _shape(hidden: Tensor, head: Head, chunk_bytes: int) -> Shape:
    product = torch.promote_types(hidden.dtype, head.weight.dtype)
    # As autocast itself does, fp64 is left alone.
    if torch.is_autocast_enabled(hidden.device.type) and product != torch.float64:
        product = torch.get_autocast_dtype(hidden.device.type)
    shape = Shape(head.scale, head.softcap, product, rows=1)
    return replace(shape, rows=max(1, chunk_bytes // (len(head.weight) * shape.wide.itemsize)))


def _chunked(hidden: Tensor, weight: Tensor, up: Tensor | None, bias: Tensor | None, shape: Shape) -> ChunkedHead:
    return ChunkedHead(weight, up, bias, replace(shape, rows=min(shape.rows, max(1, len(hidden)))))


def _forward(chunked: ChunkedHead, hidden: Tensor, targets: Tensor) -> Tensor:
    logps = torch.empty(len(hidden), dtype=chunked.shape.wide, device=hidden.device)
    for start, end in even_spans(len(hidden), chunked.shape.rows):
        logps[start:end] = chunked.forward(hidden[start:end], targets[start:end]).logps
    return logps


class _FrozenHead(torch.autograd.Function):
    """Log-probs under a head that is not trained; d logp / d hidden is formed chunk by chunk in the forward pass and only scaled later."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, up: Tensor | None, bias: Tensor | None, targets: Tensor, shape: Shape) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            chunked = _chunked(hidden, weight, up, bias, shape)
            logps = torch.empty(len(hidden), dtype=shape.wide, device=hidden.device)
            slopes = torch.empty(hidden.shape, dtype=shape.product, device=hidden.device)
            for start, end in even_spans(len(hidden), chunked.shape.rows):
                chunk = chunked.forward(hidden[start:end], targets[start:end])
                logps[start:end] = chunk.logps
                chunked.into_hidden(chunked.slopes(chunk, torch.ones_like(chunk.logps)), slopes[start:end])
        ctx.save_for_backward(slopes)
        ctx.dtype = hidden.dtype
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grad.unsqueeze(1)).to(ctx.dtype), None, None, None, None, None


@dataclass(frozen=True, slots=True)
class _Gradients:
    """Gradients of hidden, weight, up and bias, summed over the rows seen so far in fp32 or better; None where not wanted."""

    hidden: Tensor | None
    weight: Tensor | None
    up: Tensor | None
    bias: Tensor | None

    @staticmethod
    def zeros(inputs: Sequence[Tensor | None], wanted: Sequence[bool], shape: Shape) -> _Gradients:
        """For the four inputs of which `wanted` says which. Rows' gradients are not sums, so their own dtype does."""
        dtypes = (inputs[0].dtype if inputs[0] is not None and not shape.underflows else shape.wide, *[shape.wide] * 3)
        parts = zip(inputs, wanted[:4], dtypes, strict=True)
        return _Gradients(*[torch.zeros_like(part, dtype=dtype) if part is not None and want else None for part, want, dtype in parts])

    def add(self, chunked: ChunkedHead, chunk: Chunk, coefficients: Tensor, rows: slice) -> None:
        """Nothing returned: adds the chunk's share, given d loss / d logps of its rows."""
        largest = None
        if chunked.shape.underflows:
            # fp16 holds nothing below 6e-8: the slopes are formed for coefficients of at most 1, and scaled back in fp32.
            largest = coefficients.abs().amax().to(chunked.shape.wide)
            largest = torch.where(largest > 0, largest, torch.ones_like(largest))
            coefficients = coefficients / largest
        bias = None if self.bias is None else torch.zeros_like(self.bias)
        slopes = chunked.slopes(chunk, coefficients, bias)
        if self.hidden is not None:
            chunked.into_hidden(slopes, self.hidden[rows])
            if largest is not None:
                self.hidden[rows] *= largest
        width = chunk.hidden.shape[1] - chunked.rank
        for total, columns in ((self.weight, slice(0, width)), (self.up, slice(width, None))):
            if total is not None:
                chunked.into_weight(slopes, chunk.hidden[:, columns], total, factor=largest)
        if self.bias is not None and bias is not None:
            self.bias.add_(bias if largest is None else bias * largest)

    def scale(self, ratio: Tensor) -> None:
        """Nothing returned: multiplies all by `ratio`, a scalar."""
        for part in (self.hidden, self.weight, self.up, self.bias):
            if part is not None:
                part.mul_(ratio)

    def like(self, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The four gradients, each in its input's dtype."""
        parts = (self.hidden, self.weight, self.up, self.bias)
        return [None if part is None or given is None else part.to(given.dtype) for part, given in zip(parts, inputs, strict=True)]


@dataclass(slots=True)
class _Foreseen:
    """Gradients made in the forward pass for the coefficients that the hint foretold."""

    gradients: _Gradients
    coefficients: Tensor

    def ratio(self, grad: Tensor) -> Tensor | None:
        """The one number by which `grad` [M] is a multiple of the foretold coefficients, or None. One sync with the device."""
        given, foretold = grad.double(), self.coefficients.double()
        if not len(given):
            return given.new_ones(())
        square = foretold.square().sum()
        # All coefficients zero: the stored gradients are zero, and right only if nothing comes in.
        ratio = torch.where(
            square > 0, (given * foretold).sum() / square.clamp_min(torch.finfo(torch.float64).tiny), torch.zeros_like(square)
        )
        # Row by row: beside one saturated pair with a slope of 1e7, the others would vanish in a common tolerance.
        holds = ((given - ratio * foretold).abs() <= RATIO_TOLERANCE * given.abs()).all()
        return ratio if bool(holds) else None


class _TrainedHead(torch.autograd.Function):
    """Log-probs under a head of which something is trained."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        up: Tensor | None,
        bias: Tensor | None,
        targets: Tensor,
        shape: Shape,
        hint: Hint | None,
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, up, bias, targets)
        ctx.shape, ctx.foreseen = shape, None
        spans = None if hint is None else whole_spans(hint.ends, shape.rows)
        with torch.autocast(hidden.device.type, enabled=False):
            chunked = _chunked(hidden, weight, up, bias, shape)
            if hint is None or spans is None:
                return _forward(chunked, hidden, targets)
            gradients = _Gradients.zeros((hidden, weight, up, bias), ctx.needs_input_grad, shape)
            logps = torch.empty(len(hidden), dtype=shape.wide, device=hidden.device)
            foretold = torch.empty_like(logps)
            for start, end in spans:
                chunk = chunked.forward(hidden[start:end], targets[start:end])
                logps[start:end] = chunk.logps
                foretold[start:end] = hint.coefficients(chunk.logps, start, end)
                gradients.add(chunked, chunk, foretold[start:end], slice(start, end))
        ctx.foreseen = _Foreseen(gradients, foretold)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, up, bias, targets = ctx.saved_tensors
        inputs = (hidden, weight, up, bias)
        # Spent by the first backward pass; a second one over a retained graph computes anew.
        foreseen, ctx.foreseen = ctx.foreseen, None
        ratio = None if foreseen is None else foreseen.ratio(grad)
        if foreseen is not None and ratio is not None:
            foreseen.gradients.scale(ratio)
            return *foreseen.gradients.like(inputs), None, None, None
        foreseen = None
        with torch.autocast(hidden.device.type, enabled=False):
            chunked = _chunked(hidden, weight, up, bias, ctx.shape)
            gradients = _Gradients.zeros(inputs, ctx.needs_input_grad, ctx.shape)
            for start, end in even_spans(len(hidden), chunked.shape.rows):
                chunk = chunked.forward(hidden[start:end], targets[start:end])
                gradients.add(chunked, chunk, grad[start:end], slice(start, end))
        return *gradients.like(inputs), None, None, None

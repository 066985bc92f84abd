"""Log-probabilities and their gradients for one chunk of rows of the head, in buffers that every chunk reuses.

    logits l = softcap(scale * (x W^T + bias)),    log p_y = l_y - log sum_v exp l_v,    d log p_y / d (x W^T) = ([v = y] - p_v) * dl

The product fills one buffer [rows, V]; every elementwise step runs on a tile of a few rows of it, so nothing else of that size is alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

CACHED_TILE_BYTES = 1 << 20
"""A tile's size on a CPU: what stays in a core's cache between two elementwise steps (2-8 rows of 49k entries best; a chunk 1.8x)."""

CACHED_BLOCK_ELEMENTS = 1 << 21
"""A block of a weight gradient on a CPU: made and added in cache (1-4k rows of 576 measured best; one block of all took twice as long)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How logits come from the product, in which dtype the product runs, and how many rows one chunk holds."""

    scale: float
    softcap: float | None
    product: torch.dtype
    rows: int

    @property
    def wide(self) -> torch.dtype:
        """The dtype of everything but the product: fp32, or fp64 where the product is fp64."""
        return torch.float64 if self.product == torch.float64 else torch.float32

    @property
    def underflows(self) -> bool:
        """Whether coefficients such as 1e-5 would vanish in the product's dtype."""
        return self.product == torch.float16


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk after its forward: what its slopes need. `exact` holds the targets' products in fp32 where the product was rounded."""

    hidden: Tensor  # [n, H]
    targets: Tensor  # [n, 1]
    product: Tensor  # [n, V], a view of the shared buffer: valid until the next chunk
    exact: Tensor | None  # [n, 1]
    highest: Tensor  # [n, 1]
    total: Tensor  # [n, 1], sum of exp(logit - highest)
    logps: Tensor  # [n]


class ChunkedHead:
    """A head's weight in the product's dtype, with the buffers for a chunk of at most `rows` rows.

    `up` [V, r], the wide half of a low-rank change to the weight, stands beside the weight: rows then have H + r entries.
    """

    def __init__(self, weight: Tensor, up: Tensor | None, bias: Tensor | None, shape: Shape) -> None:
        self.shape, self.rank = shape, 0 if up is None else up.shape[1]
        self.weight = weight.detach().to(shape.product)
        if up is not None:
            self.weight = torch.cat([self.weight, up.detach().to(shape.product)], dim=1)
        self.bias = None if bias is None else bias.detach().to(shape.wide)
        # CUDA gives the fp32 accumulator of a bf16 product; a CPU rounds it to bf16, which `exact` makes up for at the target.
        self.keeps_accumulator = weight.is_cuda and shape.product != shape.wide
        self._product = self._new(shape.wide if self.keeps_accumulator else shape.product)
        self._slopes: Tensor | None = None

    def _new(self, dtype: torch.dtype) -> Tensor:
        return torch.empty(self.shape.rows, self.weight.shape[0], dtype=dtype, device=self.weight.device)

    def forward(self, hidden: Tensor, targets: Tensor) -> Chunk:
        """The chunk of `hidden` [n, H] and `targets` [n], with its log-probs; n is at most the rows of a chunk."""
        hidden, index = hidden.detach().to(self.shape.product), targets.unsqueeze(1)
        product = self._product[: len(hidden)]
        exact = None
        if self.keeps_accumulator:
            torch.mm(hidden, self.weight.t(), out_dtype=self.shape.wide, out=product)
        else:
            torch.mm(hidden, self.weight.t(), out=product)
        if product.dtype != self.shape.wide:
            exact = (hidden.to(self.shape.wide) * self.weight[targets].to(self.shape.wide)).sum(1, keepdim=True)
        highest, total = (torch.empty(len(hidden), 1, dtype=self.shape.wide, device=hidden.device) for _ in range(2))
        logps = torch.empty_like(total)
        for rows in self._tiles(len(hidden)):
            logits = self._logits(product, index, exact, rows)
            highest[rows] = logits.amax(1, keepdim=True)
            # The difference to the highest logit is taken first: adding it to the logarithm would cost the digits of a log-prob near 0.
            logps[rows] = logits.gather(1, index[rows]).sub_(highest[rows])
            total[rows] = logits.sub_(highest[rows]).exp_().sum(1, keepdim=True)
        logps -= total.log()
        return Chunk(hidden, index, product, exact, highest, total, logps.squeeze(1))

    def slopes(self, chunk: Chunk, coefficients: Tensor, bias_grad: Tensor | None = None) -> Tensor:
        """coefficients [n] * d log p / d (x W^T), as [n, V] in the product's dtype; its column sums are added to `bias_grad` [V].

        The buffer is valid until the next chunk; the chunk's product is spent.
        """
        shape = self.shape
        gain = coefficients.to(shape.wide).unsqueeze(1) * shape.scale
        falling = -gain / chunk.total
        slopes = self._slope_buffer(chunk)
        for rows in self._tiles(len(gain)):
            logits = self._logits(chunk.product, chunk.targets, chunk.exact, rows)
            bend = None if shape.softcap is None else 1 - (logits / shape.softcap).square_()
            slope = logits.sub_(chunk.highest[rows]).exp_().mul_(falling[rows])
            slope.scatter_add_(1, chunk.targets[rows], gain[rows])
            if bend is not None:
                slope.mul_(bend)
            if bias_grad is not None:
                bias_grad += slope.sum(0)
            slopes[rows] = slope
        return slopes

    def into_hidden(self, slopes: Tensor, out: Tensor) -> None:
        """Nothing returned: `out` [n, H] becomes slopes W."""
        if out.dtype == slopes.dtype:
            torch.mm(slopes, self.weight, out=out)
        else:
            out.copy_(torch.mm(slopes, self.weight))

    def into_weight(self, slopes: Tensor, hidden: Tensor, total: Tensor, *, factor: Tensor | None = None) -> None:
        """Nothing returned: factor * slopes^T hidden is added to `total` [V, H], fp32 or better whatever the product's dtype."""
        if slopes.dtype == total.dtype and factor is None:
            total.addmm_(slopes.t(), hidden)
            return
        # The product comes in blocks, since it cannot be added where it is made: none larger than the chunk's own buffer.
        elements = self.shape.rows * len(total)
        step = max(1, (elements if slopes.is_cuda else min(elements, CACHED_BLOCK_ELEMENTS)) // total.shape[1])
        for start in range(0, len(total), step):
            columns = slopes[:, start : start + step].t()
            if slopes.is_cuda and slopes.dtype != total.dtype:
                block = torch.mm(columns, hidden, out_dtype=total.dtype)
            else:
                block = torch.mm(columns, hidden)
            total[start : start + step].add_(block if factor is None else block.to(total.dtype) * factor)

    def _slope_buffer(self, chunk: Chunk) -> Tensor:
        if chunk.product.dtype == self.shape.product:
            return chunk.product
        if self._slopes is None:
            self._slopes = self._new(self.shape.product)
        return self._slopes[: len(chunk.product)]

    def _logits(self, product: Tensor, targets: Tensor, exact: Tensor | None, rows: slice) -> Tensor:
        """The tile's logits [m, V] in fp32 or better, a new tensor; the product stays as it is."""
        logits = product[rows].to(self.shape.wide, copy=True)
        if exact is not None:
            logits.scatter_(1, targets[rows], exact[rows])
        if self.bias is not None:
            logits += self.bias
        cap = self.shape.softcap
        if cap is None:
            return logits if self.shape.scale == 1.0 else logits.mul_(self.shape.scale)
        return logits.mul_(self.shape.scale / cap).tanh_().mul_(cap)

    def _tiles(self, count: int) -> Sequence[slice]:
        row_bytes = self.weight.shape[0] * self.shape.wide.itemsize
        rows = self.shape.rows // 8 if self.weight.is_cuda else min(self.shape.rows // 2, CACHED_TILE_BYTES // row_bytes)
        rows = max(1, rows)
        return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]


def even_spans(count: int, rows: int) -> list[tuple[int, int]]:
    """0:count in the fewest spans of at most `rows` rows, of nearly equal length: a short last product would run at a lower rate."""
    num_spans = -(-count // rows)
    edges = [count * index // num_spans for index in range(num_spans + 1)] if num_spans else []
    return list(pairwise(edges))


def whole_spans(ends: Sequence[int], rows: int) -> list[tuple[int, int]] | None:
    """Spans of whole examples of at most `rows` rows each; None if one does not fit. `ends`: where examples end."""
    spans: list[tuple[int, int]] = []
    start, previous = 0, 0
    for end in ends:
        if end - previous > rows:
            return None
        if end - start > rows:
            spans.append((start, previous))
            start = previous
        previous = end
    if previous > start:
        spans.append((start, previous))
    return spans

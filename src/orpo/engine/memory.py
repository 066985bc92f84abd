"""How much memory a training step needs, by part, before anything is loaded; and how many tokens fit into what is free.

    always there         weights + optimizer state + the process itself + tokenized pairs
    head of the model    + what the forward pass kept + one chunk of logits + the head's gradient + earlier gradients
    backward pass        + the most that the body holds in it + the head's gradient + gradients so far
    optimizer step       + all gradients + the optimizer's own work space
    on a CPU             + allocator slack: holes that the C library leaves between numbers of different life
    peak                 the most of the three moments; from the second step on, when the optimizer's state exists

The body's share is counted by memory_trace.py at three sizes and interpolated; being a maximum of straight lines, it is never below the
line drawn beyond its points and never above one drawn between them. The head's share follows from its chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

from orpo.engine.memory_sharded import gathered_bytes
from orpo.engine.memory_trace import ModelSizes, StepTrace, Uncountable, ensure_countable, model_sizes, traced_step
from orpo.engine.packed import CHUNK_BYTES

HOLES_SHARE: Mapping[tuple[bool, bool], float] = {(False, False): 0.12, (True, False): 0.095, (False, True): 0.055, (True, True): 0.04}
"""(checkpointing, products in a half type) -> numbers that glibc keeps from the system on a CPU, as a share of all small ones that a step
makes: an aligned block does not fit into the hole that one of its size has left, so that each layer of the first pass takes new memory.
Fitted to benchmarks/bench_plan.py at 135M: 8 and 30 layers, all weights and LoRA, 1,024 and 2,048 tokens; single cases lie 30 % apart."""

SHARE_OF_FREE: Mapping[str, float] = {"cpu": 0.6, "cuda": 0.85}
"""How much of free memory a run plans with. A CPU is shared with other programs, and swapping is worse than a smaller micro-batch."""

TRACED_ROWS = (1, 8, 64)

EIGHT_BIT = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")
"""Optimizers of bitsandbytes that keep moments in 8 bits. Paged ones may move to the host when a GPU is full; they count as on the GPU."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes of each part at the moment of the peak."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    process: int
    data: int
    allocator: int
    moment: str

    @property
    def parts(self) -> dict[str, int]:
        """Name -> bytes, in the order in which people read them."""
        names = ("weights", "gradients", "optimizer", "activations", "head", "allocator", "process", "data")
        return {name: getattr(self, name) for name in names}

    @property
    def peak_bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def new_bytes(self) -> int:
        """What is still to be allocated by a process that runs already and has read its data."""
        return self.peak_bytes - self.process - self.data


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a step shares memory with. `dtype` is that of matrix products; `data` and `process` are bytes that are there already.

    With `keeps_copy` the model as it was before training is in memory as well, in `dtype`. Where weights are divided (`is_sharded`), each
    of `num_ranks` processes holds its part of them, of gradients and of the optimizer's state.
    """

    dtype: torch.dtype
    optimizer: str
    device: str = "cpu"
    num_ranks: int = 1
    process: int = 0
    data: int = 0
    chunk_bytes: int = CHUNK_BYTES
    keeps_copy: bool = False
    is_sharded: bool = False

    def own_part(self, num_bytes: int) -> int:
        """What this process holds of `num_bytes` that are divided, where they are."""
        return -(-num_bytes // self.num_ranks) if self.is_sharded else num_bytes


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """What a step needs at any number of tokens. `traces(checkpointing)` gives steps of several sizes, ascending in tokens."""

    sizes: ModelSizes
    traces: Callable[[bool], tuple[StepTrace, ...]]
    around: Surroundings

    def need(self, tokens: int, *, checkpointing: bool, accumulates: bool = True) -> MemoryNeed:
        """The need of a largest micro-batch of `tokens`. `accumulates`: some step has several, so that gradients are there before it."""
        body = trace_at(self.traces(checkpointing), tokens)
        sizes, around = self.sizes, self.around
        copies = 2 if around.num_ranks > 1 and not around.is_sharded else 1  # DDP keeps a copy in its buckets
        total = around.own_part(gradient_bytes(sizes)) * copies
        earlier = total if accumulates else total - around.own_part(gradient_bytes(sizes))
        head_gradient = 4 * sizes.vocabulary * sizes.hidden if sizes.head_is_trained else 0
        copy = around.own_part(sizes.num_parameters * around.dtype.itemsize) if around.keeps_copy else 0
        base = MemoryNeed(
            weights=around.own_part(sizes.weight_bytes) + (gathered_bytes(sizes) if around.is_sharded else 0) + copy,
            gradients=0,
            optimizer=around.own_part(optimizer_bytes(sizes, around.optimizer)),
            activations=0,
            head=0,
            process=around.process,
            data=around.data,
            allocator=round(HOLES_SHARE[checkpointing, around.dtype.itemsize < 4] * body.made) if around.device == "cpu" else 0,
            moment="optimizer step",
        )
        moments = [
            replace(base, gradients=total, head=0, activations=optimizer_work_bytes(sizes, around)),
            replace(
                base,
                gradients=earlier,
                activations=body.kept,
                head=head_bytes(sizes, around, tokens) + head_gradient,
                moment="head",
            ),
        ]
        apart = replace(base, gradients=total, activations=body.backward, head=head_gradient, moment="backward pass")
        growing = replace(
            base,
            gradients=earlier + around.own_part(body.gradients_then),
            activations=body.backward_first - body.gradients_then,
            head=head_gradient,
            moment="backward pass",
        )
        if around.is_sharded:  # every process loads the whole model before it is divided
            moments.append(replace(base, weights=sizes.weight_bytes + copy, optimizer=0, allocator=0, moment="start"))
        return max([*moments, apart if accumulates else growing], key=lambda moment: moment.peak_bytes)

    def tokens_that_fit(self, free_bytes: int, *, checkpointing: bool, accumulates: bool = True, at_most: int = 2**20) -> int:
        """The most tokens, up to `at_most`, whose new bytes are within `free_bytes`; 0 when not even one token fits."""

        def fits(tokens: int) -> bool:
            return self.need(tokens, checkpointing=checkpointing, accumulates=accumulates).new_bytes <= free_bytes

        if fits(at_most):
            return at_most
        low, high = 0, at_most  # low fits (or is 0), high does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low


@dataclass(frozen=True, slots=True)
class Setting:
    """Tokens at once, and whether activations are recomputed. `fits` is false where even the longest pair does not."""

    tokens: int
    checkpointing: bool
    fits: bool


def memory_model(build: Callable[[bool], nn.Module], around: Surroundings, *, row_length: int) -> MemoryModel:
    """The memory of training the model that `build(checkpointing)` makes, for rows up to `row_length` tokens."""
    sizes = model_sizes(lambda: build(False))

    @cache  # a trace of a large model takes a second, and often only one kind is asked for
    def traces(checkpointing: bool) -> tuple[StepTrace, ...]:
        try:
            ensure_countable(lambda: build(False), around.device)
            return tuple(
                traced_step(lambda: build(checkpointing), rows=rows, row_length=row_length, dtype=around.dtype, device=around.device)
                for rows in TRACED_ROWS
            )
        except Uncountable as error:
            why = str(error)
            return tuple(rough_trace(sizes, row_length * rows, around, checkpointing=checkpointing, why=why) for rows in TRACED_ROWS)

    return MemoryModel(sizes, traces, around)


def rough_memory_model(build: Callable[[bool], nn.Module], around: Surroundings, *, row_length: int) -> MemoryModel:
    """The same by an estimate that runs nothing: for questions whose answer is not close."""
    sizes = model_sizes(lambda: build(False))

    def traces(checkpointing: bool) -> tuple[StepTrace, ...]:
        lengths = (row_length * rows for rows in TRACED_ROWS)
        return tuple(rough_trace(sizes, tokens, around, checkpointing=checkpointing, why="not counted") for tokens in lengths)

    return MemoryModel(sizes, traces, around)


def rough_trace(sizes: ModelSizes, tokens: int, around: Surroundings, *, checkpointing: bool, why: str) -> StepTrace:
    """An estimate where a model cannot be counted: a layer keeps 34 numbers of hidden size per token, or its input and one layer's 34."""
    number = tokens * sizes.hidden * around.dtype.itemsize
    casts = sizes.trained_bytes * around.dtype.itemsize // 4 if around.dtype != torch.float32 else 0
    kept = casts + number * sizes.num_layers * (1 if checkpointing else 34)
    most = kept + 34 * number
    return StepTrace(tokens, kept, most, most + sizes.trained_bytes, sizes.trained_bytes, 3 * 34 * number * sizes.num_layers, why)


def trace_at(traces: tuple[StepTrace, ...], tokens: int) -> StepTrace:
    """`traces` at another number of tokens: the line through the two points around it, or through the last two beyond them."""
    if tokens <= traces[0].tokens:
        return replace(traces[0], tokens=tokens)
    right = next((i for i in range(1, len(traces)) if traces[i].tokens >= tokens), len(traces) - 1)
    left = traces[right - 1]
    share = (tokens - left.tokens) / (traces[right].tokens - left.tokens)

    def between(name: str) -> int:
        start, end = getattr(left, name), getattr(traces[right], name)
        return int(start + share * (end - start))

    return StepTrace(
        tokens,
        kept=between("kept"),
        backward=between("backward"),
        backward_first=between("backward_first"),
        gradients_then=between("gradients_then"),
        made=between("made"),
        estimated=left.estimated,
    )


def gradient_bytes(sizes: ModelSizes) -> int:
    """Gradients of all trained weights, in the weights' own dtype."""
    return sizes.trained_bytes


def optimizer_bytes(sizes: ModelSizes, optimizer: str) -> int:
    """State of `optimizer` (a name of transformers) from its second step on; Adafactor keeps one number per row and column of a matrix."""
    if optimizer == "adafactor":
        return 4 * sizes.rows_and_columns
    if optimizer in EIGHT_BIT:
        return sizes.eight_bit_moments
    numbers = {"adamw_torch_fused": 2, "adamw_torch": 2, "paged_adamw_32bit": 2, "adagrad": 1, "rmsprop": 1, "sgd": 0}[optimizer]
    return numbers * sizes.trained_bytes


def optimizer_work_bytes(sizes: ModelSizes, around: Surroundings) -> int:
    """Temporary numbers of an optimizer step: none when fused, two of the largest weight on a CPU, one of every weight on a GPU.

    bitsandbytes is fused on a GPU; on a CPU it writes moments, gradient, weight and update of one weight out in fp32.
    """
    if around.optimizer == "adamw_torch_fused":
        return 0
    if around.optimizer in (*EIGHT_BIT, "paged_adamw_32bit"):
        return 0 if around.device == "cuda" else 6 * 4 * sizes.largest_trained
    if around.device == "cuda" and around.optimizer != "adafactor":
        return sizes.trained_bytes
    return 2 * 4 * sizes.largest_trained


def head_bytes(sizes: ModelSizes, around: Surroundings, tokens: int) -> int:
    """The head's own beside its gradient: the hidden states it reads and their gradients, and one chunk of logits in the products' dtype
    (a GPU keeps them in fp32 as well); in a half type a copy of the weight."""
    chunk = min(around.chunk_bytes, 4 * tokens * sizes.vocabulary)
    rows = 2 * 4 * tokens * sizes.hidden
    if around.dtype == torch.float32:
        return chunk + rows
    half = around.dtype.itemsize / 4
    weight = around.dtype.itemsize * sizes.vocabulary * sizes.hidden if sizes.head_itemsize != around.dtype.itemsize else 0
    return round(chunk * (1 + half if around.device == "cuda" else half)) + weight + rows


def chosen_setting(
    model: MemoryModel,
    free_bytes: int,
    *,
    longest: int,
    at_most: int,
    budget: int | None,
    checkpointing: bool | None,
    accumulates: bool = True,
) -> Setting:
    """Tokens at once and checkpointing for SHARE_OF_FREE of `free_bytes`; a `budget` or a choice of `checkpointing` that is given stays.

    Recomputing costs a third of the arithmetic, small micro-batches cost less: it is taken only where the longest pair, or the given
    budget, does not fit otherwise. `at_most` is a budget beyond which nothing is gained; a pair of `longest` tokens must go in whole.
    """
    share = int(free_bytes * SHARE_OF_FREE[model.around.device])
    asked = budget or max(at_most, longest)
    least = budget or longest
    fitting = 0
    for recompute in (False, True) if checkpointing is None else (checkpointing,):
        fitting = model.tokens_that_fit(share, checkpointing=recompute, accumulates=accumulates, at_most=asked)
        if fitting >= least:
            return Setting(budget or fitting, recompute, fits=True)
    return Setting(least, checkpointing if checkpointing is not None else True, fits=False)

"""Log-probs under the model that training started from: adapters off, a frozen copy, or a table made before; one interface for all.

Examples enter, their summed reference log-probs leave: fp64, without gradients and dropout, by the engine that the policy runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orpo.core.tokens import TokenizedExample
from orpo.engine.model import LogpsModel
from orpo.engine.packed import CHUNK_BYTES
from orpo.engine.paths import Path
from orpo.engine.sharded import is_sharded

Totals = Callable[[Sequence[TokenizedExample], Sequence[int]], Tensor]
"""(examples, their positions in their store) -> summed log-probs of all their completions in order, fp64 [N], on the model's device."""


@dataclass(frozen=True, slots=True)
class References:
    """Reference log-probs of all that a run reads; the last two of prompts beside answers to other prompts (training/mismatched.py).

    A live model gives the same function for all four; a table knows the store it was made of.
    """

    train: Totals
    held_out: Totals
    mismatched: Totals
    held_out_mismatched: Totals

    @classmethod
    def live(cls, totals: Totals) -> References:
        """All by one model that is in memory."""
        return cls(totals, totals, totals, totals)


def live_totals(body: nn.Module, *, path: Path, dtype: torch.dtype, adapters: bool = True, chunk_bytes: int = CHUNK_BYTES) -> Totals:
    """Log-probs by `body` as it is when called, its products in `dtype`; of a PEFT model without `adapters`, those of its base.

    The body's mode, its adapters and the way it attends are afterwards what they were.
    """
    model = LogpsModel(body, path=path, with_prompt=False, chunk_bytes=chunk_bytes)

    def totals(examples: Sequence[TokenizedExample], _: Sequence[int]) -> Tensor:
        with torch.no_grad(), _evaluating(body), nullcontext() if adapters else adapters_off(body), _autocast(body, dtype):
            try:
                return model.completion_totals(examples)
            finally:
                model.release()

    return totals


@contextmanager
def adapters_off(body: Any) -> Iterator[None]:
    """Inside, the PEFT model `body` is its base: LoRA is off, and so are the rows of new tokens that it trains.

    PEFT's own context manager looks through all modules for their state first, which costs more than a small step.
    """
    trained = [parameter for parameter in body.parameters() if parameter.requires_grad] if is_sharded(body) else []
    body.base_model.disable_adapter_layers()
    for parameter in trained:
        # PEFT says of adapters that are off that they are not trained; FSDP2 keeps what it finds when it first gathers a layer.
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        body.base_model.enable_adapter_layers()


@contextmanager
def _evaluating(body: nn.Module) -> Iterator[None]:
    """Inside, dropout is off."""
    was_training = body.training
    body.eval()
    try:
        yield
    finally:
        body.train(was_training)


def _autocast(body: nn.Module, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """What the Trainer computes in: products in `dtype` over weights that may be wider."""
    device = next(body.parameters()).device.type
    return torch.autocast(device, dtype=dtype) if dtype in (torch.bfloat16, torch.float16) else nullcontext()

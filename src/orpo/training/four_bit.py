"""Frozen weights in 4 bits (QLoRA): NF4 with double quantisation, by bitsandbytes, where it is installed.

A model enters as transformers loads it; it leaves so that training, evaluation and saving find the same weights.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import nn


def is_installed() -> bool:
    """Whether bitsandbytes can be imported."""
    return importlib.util.find_spec("bitsandbytes") is not None


@contextmanager
def _without_code_from_the_hub() -> Iterator[None]:
    """Inside, importing bitsandbytes loads what was installed and nothing else.

    Where the package `kernels` is there, the CPU part of bitsandbytes 0.50 fetches a compiled kernel from the Hub as it is imported, and
    where it is not, a warning advises to install it. No code from the Hub is run here.
    """
    logger, before = logging.getLogger("bitsandbytes.backends.cpu.ops"), sys.modules.get("kernels")
    was_disabled, logger.disabled = logger.disabled, True
    sys.modules["kernels"] = None  # type: ignore[assignment]  # what Python reads as "not there"
    try:
        yield
    finally:
        logger.disabled = was_disabled
        del sys.modules["kernels"]
        if before is not None:
            sys.modules["kernels"] = before


def _imported() -> ModuleType | None:
    """bitsandbytes, None where it is not installed."""
    if not is_installed():
        return None
    with _without_code_from_the_hub():
        return importlib.import_module("bitsandbytes")


# Here and not where it is needed: PEFT and the Trainer import it as soon as it is installed, and the first import counts.
BITSANDBYTES = _imported()


def nf4(dtype: torch.dtype) -> Any:
    """The quantization_config of a model whose linear layers are held as NF4, scales quantised as well, and multiply in `dtype`."""
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def four_bit_layers(body: nn.Module) -> list[Any]:
    """The layers of `body` whose weights are held in 4 bits."""
    return [] if BITSANDBYTES is None else [module for module in body.modules() if isinstance(module, BITSANDBYTES.nn.Linear4bit)]


def steadied(body: Any, dtype: torch.dtype) -> Any:
    """`body`; its 4-bit layers multiply in `dtype`, and their weights stay what they are.

    On a CPU with AVX512-BF16 a layer of bitsandbytes 0.50 packs its weights anew in its first forward pass without gradients: their scales
    are rounded to bf16 then, and no gradient passes the layer any more, in training neither. One evaluation, and gradients are wrong.
    """
    for layer in four_bit_layers(body):
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
        layer.support_avx512bf16_for_cpu = False
    return body


def dequantised(body: Any, dtype: torch.dtype) -> Any:
    """`body` with its 4-bit weights written out in `dtype`: what it was trained on, to be merged into."""
    return body.dequantize(dtype).to(dtype)


def num_weights(parameter: torch.Tensor) -> int:
    """How many numbers `parameter` stands for: two in each byte of a 4-bit weight."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())

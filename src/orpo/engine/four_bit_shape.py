"""What linear layers in 4 bits hold, for counting memory: a model without weights enters, one with such layers leaves."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

BLOCK = 64
"""Weights that share a scale of one byte (bitsandbytes' default)."""

SCALES = 256
"""Scales that share a scale of their own, in fp32: double quantisation."""

TABLES = 4 * (16 + 256 + 1)
"""Bytes of the two code tables of a layer and the mean of its scales."""


class FourBitShape(nn.Linear):
    """A linear layer that stands in for one in 4 bits: its weight is written out for each product and let go behind it."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weight as it is held: half a byte each, the scales of its blocks, their scales, the code tables."""
        numbers = self.in_features * self.out_features
        scales = -(-numbers // BLOCK)
        return -(-numbers // 2) + scales + 4 * -(-scales // SCALES) + TABLES

    def forward(self, rows: Tensor) -> Tensor:
        """What a frozen linear layer gives."""
        product: Tensor = _WrittenOut.apply(rows.to(self.weight.dtype), self.weight)  # type: ignore[no-untyped-call]
        return (product if self.bias is None else product + self.bias).to(rows.dtype)


class _WrittenOut(torch.autograd.Function):
    """A product with a copy of the weight, made anew in each direction."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(rows, weight.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ weight.clone().to(gradients[0].dtype), None


def in_four_bits(model: Any) -> Any:
    """`model` with the layers replaced that bitsandbytes would hold in 4 bits, by transformers' own rule: never the output layer."""
    kept = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())]
    for name, module in list(model.named_modules()):
        if (isinstance(module, Conv1D) or type(module) is nn.Linear) and should_convert_module(name, kept):
            outputs, inputs = module.weight.shape[::-1] if isinstance(module, Conv1D) else module.weight.shape
            shape = FourBitShape(inputs, outputs, bias=module.bias is not None, dtype=module.weight.dtype, device=module.weight.device)
            model.set_submodule(name, shape)
    return model


def held_bytes(model: nn.Module) -> dict[int, int]:
    """id of a weight -> bytes in which `model` holds it, for the weights in 4 bits."""
    return {id(module.weight): module.stored_bytes for module in model.modules() if isinstance(module, FourBitShape)}

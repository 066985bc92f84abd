"""Which dtype the matrix products run in: measured on this machine, never assumed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtype of matrix products, and why, for people. Weights that are trained and all sums stay in fp32 or better."""

    dtype: torch.dtype
    reason: str


def choose_precision(choice: str, device: torch.device) -> Precision:
    """The dtype for 'float32', 'bfloat16' or 'auto'; 'auto' probes a CPU once and takes bf16 where it is at least 1.5 times faster."""
    if choice != "auto":
        return Precision(getattr(torch, choice), "as asked")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, "this GPU computes bf16 in hardware")
        return Precision(torch.float32, "this GPU has no bf16")
    speedup = cpu_bf16_speedup()
    if speedup >= 1.5:
        return Precision(torch.bfloat16, f"bf16 products measured {speedup:.1f} times as fast as fp32 here")
    return Precision(torch.float32, f"bf16 products measured only {speedup:.1f} times as fast as fp32 here")


def cpu_bf16_speedup(size: int = 512, rounds: int = 5) -> float:
    """How many times faster a bf16 matrix product is than an fp32 one on this CPU: the best of `rounds` of each, interleaved."""
    best: dict[torch.dtype, float] = {}
    operands = {dtype: torch.ones(size, size, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    for _ in range(rounds):
        for dtype, matrix in operands.items():
            start = time.perf_counter()
            matrix @ matrix
            best[dtype] = min(best.get(dtype, float("inf")), time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]

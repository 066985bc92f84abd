"""Attention over a pack on CUDA in half precision: the choice of a kernel, and nothing else."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from orpo.engine.attention import attend_by_example
from orpo.engine.attention_flex import attend_flex
from orpo.engine.attention_varlen import attend_varlen
from orpo.engine.layout import Layout

Backend = Literal["varlen", "flash-attn", "flex", "by example"]

LARGEST_FLASH_HEAD = 256
FLASH_CAPABILITY = (8, 0)
"""The first GPUs that FlashAttention 2 runs on."""

SOFTCAP_VERSION = (2, 7)
"""flash-attn's first release line whose backward knows soft-caps throughout."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention [1, T, heads, D] of a pack by the kernel that `choose_backend` names; query [1, heads, T, D]."""
    backend = choose_backend(
        head_dim=query.shape[-1],
        value_dim=value.shape[-1],
        softcap=softcap is not None,
        sinks=sinks is not None,
        capability=torch.cuda.get_device_capability(query.device),
        flash_attn=flash_attn_version() >= SOFTCAP_VERSION,
    )
    layout.cache["backend"] = backend
    if backend == "varlen":
        grouped = _grouped_heads(query, key)
        return attend_varlen(query, key, value, layout, scale=scale, window=window, function=varlen_attn, **grouped)
    if backend == "flash-attn":
        assert softcap is not None
        return attend_varlen(query, key, value, layout, scale=scale, window=window, function=_flash_attn, softcap=softcap)
    attend_else = attend_flex if backend == "flex" else attend_by_example
    return attend_else(query, key, value, layout, scale=scale, window=window, softcap=softcap, sinks=sinks)


def choose_backend(*, head_dim: int, value_dim: int, softcap: bool, sinks: bool, capability: tuple[int, int], flash_attn: bool) -> Backend:
    """The kernel for one attention layer. `flash_attn`: that package is installed and knows soft-caps.

    Heads over 256 wide go example by example, also with soft-cap or sinks: FlexAttention has no measured tile sizes for them, and an
    out-of-shared-memory error there comes in the middle of a backward pass.
    """
    if capability < FLASH_CAPABILITY or head_dim > LARGEST_FLASH_HEAD or head_dim != value_dim or head_dim % 8:
        return "by example"
    if sinks:
        return "flex"
    if softcap:
        return "flash-attn" if flash_attn else "flex"
    return "varlen"


@cache
def flash_attn_version() -> tuple[int, int]:
    """Major and minor version of the flash-attn package; (0, 0) where it is not installed."""
    try:
        major, minor = version("flash-attn").split(".")[:2]
    except PackageNotFoundError:
        return (0, 0)
    return int(major), int(minor)


def _grouped_heads(query: Tensor, key: Tensor) -> dict[str, bool]:
    """What varlen_attn must be told about fewer key heads than query heads. Before it knew `enable_gqa` it asked for nothing."""
    if query.shape[1] == key.shape[1] or "enable_gqa" not in inspect.signature(varlen_attn).parameters:
        return {}
    return {"enable_gqa": True}


def _flash_attn(
    query: Tensor, key: Tensor, value: Tensor, *lengths: Any, scale: float, window_size: tuple[int, int], softcap: float
) -> Tensor:
    """flash-attn's variable-length function under the argument names of torch's."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    options: dict[str, Any] = {"softmax_scale": scale, "causal": True, "window_size": window_size, "softcap": softcap}
    out: Tensor = import_module("flash_attn").flash_attn_varlen_func(query, key, value, *lengths, **options, deterministic=deterministic)
    return out

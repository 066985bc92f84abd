"""Attention over a pack: each branch sees its prefix and itself, nothing else. Registered with transformers under a name of its own.

No mask is registered with it, so transformers hands over no mask; the layout of the pack comes along as a keyword argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from orpo.engine.layout import Layout, PackedExample

NAME = "orpo_packed"
"""The name in transformers' table. It must not contain sdpa, flash or flex_attention: each of these switches on special treatment."""

LAYOUT = "orpo_layout"
"""The keyword argument that carries the layout from the model's forward to every attention layer."""

KNOWN = frozenset({"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "return_dict"})
"""Keyword arguments that change nothing here."""


class PackedAttentionError(RuntimeError):
    """A layer asked for something that attention over a pack cannot give; the start-up check then takes another path."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention output [1, T, heads, head_dim] of a pack; query [1, heads, T, head_dim], key and value with as many heads or fewer.

    Raises PackedAttentionError without a layout, or for a mask, a bias, or dropout, which a pack does not know.
    """
    layout = kwargs.pop(LAYOUT, None)
    if not isinstance(layout, Layout):
        raise PackedAttentionError("the layout of the pack did not reach the attention layer")
    _refuse(module, attention_mask, dropout, is_causal, kwargs)
    assert query.shape[2] == layout.num_rows == key.shape[2], "one row per token"
    layout.cache["calls"] = layout.cache.get("calls", 0) + 1
    query, key, value = (_as_autocast(tensor) for tensor in (query, key, value))
    window = sliding_window if sliding_window is not None and sliding_window < layout.longest else None
    scale = scaling if scaling is not None else 1 / math.sqrt(query.shape[-1])
    return _backend(query)(query, key, value, layout, scale=scale, window=window, softcap=softcap, sinks=s_aux), None


def _backend(query: Tensor) -> Callable[..., Tensor]:
    """The fastest attention over packs for the device and dtype of `query`."""
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        from orpo.engine.attention_cuda import attend

        return attend
    if query.device.type == "cpu":
        from orpo.engine.attention_cpu import attend_in_blocks

        return attend_in_blocks
    return attend_by_example


def register() -> None:
    """Nothing; transformers knows `packed_attention` by NAME from now on."""
    AttentionInterface.register(NAME, packed_attention)


def _as_autocast(tensor: Tensor) -> Tensor:
    """`tensor` as autocast would hand it to torch's attention: a norm of queries and keys with fp32 weights leaves them fp32."""
    device = tensor.device.type
    if not torch.is_autocast_enabled(device) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def _refuse(module: nn.Module, mask: Tensor | None, dropout: float, is_causal: bool | None, kwargs: dict[str, Any]) -> None:
    """Nothing; raises PackedAttentionError for what would silently change the result."""
    if mask is not None:
        raise PackedAttentionError("the model makes an attention mask of its own")
    if dropout:
        raise PackedAttentionError("attention dropout would fall on all branches of a pair alike")
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if not causal:
        raise PackedAttentionError("a layer is not causal")
    unknown = [name for name, given in kwargs.items() if given is not None and given is not False and name not in KNOWN]
    if unknown:
        raise PackedAttentionError(f"a layer asks for {', '.join(sorted(unknown))}")


def attend_by_example(
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
    """The same, example by example: the first branch with its prefix in one causal product, each further branch against prefix and itself.

    Every query costs what it costs in a row of its own; no mask over the whole pack is ever made.
    """
    sizes = [size for example in layout.examples for size in _segments(example)]
    # One split has one backward, a concatenation; a slice per segment would fill a pack of zeros for each.
    queries, keys, values = (iter(torch.split(tensor, sizes, dim=2)) for tensor in (query, key, value))
    outputs: list[Tensor] = []
    for example in layout.examples:
        first_key, first_value = next(keys), next(values)
        shared = [tensor[:, :, : example.prefix] for tensor in (first_key, first_value)]
        for branch, own in enumerate(_segments(example)):
            if branch == 0:
                branch_key, branch_value = first_key, first_value
            else:
                branch_key, branch_value = (
                    torch.cat([prefix, next(rest)], dim=2) for prefix, rest in zip(shared, (keys, values), strict=True)
                )
            is_square = own == branch_key.shape[2]
            mask = None if is_square and window is None else _mask(layout, own, branch_key, window)
            outputs.append(_attend(next(queries), branch_key, branch_value, mask, scale=scale, softcap=softcap, sinks=sinks))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()  # some models reshape it by view


def _segments(example: PackedExample) -> tuple[int, ...]:
    """Rows that attention takes together: prefix and first branch, then each further branch."""
    return (example.prefix + example.branches[0], *example.branches[1:])


def _mask(layout: Layout, num_queries: int, key: Tensor, window: int | None) -> Tensor:
    """What the last `num_queries` of a sequence may see: themselves and before, within `window` tokens counting themselves. True: seen."""
    num_keys = key.shape[2]
    name = ("mask", num_queries, num_keys, window, key.device)
    if name not in layout.cache:
        behind = torch.arange(num_keys - num_queries, num_keys, device=key.device)[:, None] - torch.arange(num_keys, device=key.device)
        layout.cache[name] = (behind >= 0) if window is None else (behind >= 0) & (behind < window)
    mask: Tensor = layout.cache[name]
    return mask


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention of one sequence, causal where there is no mask: [1, heads, queries, head_dim]."""
    if softcap is None and sinks is None:
        grouped = query.shape[1] != key.shape[1]
        if grouped and query.is_cuda and (mask is not None or query.dtype == torch.float32):
            # No fused kernel takes grouped heads with a mask there; the plain one would keep every score for the backward pass.
            groups, grouped = query.shape[1] // key.shape[1], False
            key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped)
    return _attend_with_scores(query, key, value, mask, scale=scale, softcap=softcap, sinks=sinks)


def _attend_with_scores(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """The same with scores capped as cap * tanh(score / cap), and one more score per head (a sink) that takes weight and gives nothing."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = (query @ key.transpose(2, 3)).float() * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        sink = sinks.float().reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        weights = torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]
    return weights.to(value.dtype) @ value

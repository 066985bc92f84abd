"""The path for models that cannot take packs: rows of like length side by side, padded on the right, through the model's own forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from orpo.engine.body import layer_stack
from orpo.engine.layout import PackedBatch

MAX_PADDING = 0.2
"""Share of a padded group that may be padding; a row that would bring more starts a group of its own."""


def padded_hidden(causal: Any, batch: PackedBatch) -> Tensor:
    """Hidden states [T, H] of the rows of `batch`, which shares nothing, as if they had been packed.

    Padding stands behind its row, so a causal model never sees it; its hidden states are left out.
    """
    sizes = [size for example in batch.layout.examples for size in example.branches]
    rows = torch.split(batch.input_ids[0], sizes)
    hidden: dict[int, Tensor] = {}
    for group in length_groups(sizes):
        longest = sizes[group[0]]
        ids = torch.zeros(len(group), longest, dtype=torch.long, device=batch.input_ids.device)
        mask = torch.zeros_like(ids)
        for position, index in enumerate(group):
            ids[position, : sizes[index]] = rows[index]
            mask[position, : sizes[index]] = 1
        states = layer_stack(causal)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for position, index in enumerate(group):
            hidden[index] = states[position, : sizes[index]]
    return torch.cat([hidden[index] for index in range(len(sizes))])


def length_groups(sizes: Sequence[int]) -> list[list[int]]:
    """Positions in `sizes`, longest first, in groups of which at most MAX_PADDING is padding."""
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if groups and tokens + sizes[index] >= (1 - MAX_PADDING) * sizes[groups[-1][0]] * (len(groups[-1]) + 1):
            groups[-1].append(index)
            tokens += sizes[index]
        else:
            groups.append([index])
            tokens = sizes[index]
    return groups

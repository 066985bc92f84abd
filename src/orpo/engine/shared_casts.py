"""Under autocast every linear layer casts its input for itself, query, key and value projections the same rows. Here it is done once."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class SharedCasts:
    """Forward pre-hooks on linear layers: layers that read the same tensor in turn get the same cast of it.

    The values are those of autocast. Gradients of the cast add up in its own dtype and go back through one cast in place of several.
    """

    def __init__(self) -> None:
        self._of: weakref.ref[Tensor] | None = None
        self._key: tuple[Any, ...] = ()
        self._cast: Tensor | None = None

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        """Handles of the hooks on every linear layer of `model`."""
        return [module.register_forward_pre_hook(self._hook) for module in model.modules() if isinstance(module, nn.Linear)]

    def forget(self) -> None:
        """Nothing; the last cast, and the graph behind it, is let go."""
        self._of, self._cast = None, None

    def _hook(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = inputs[0]
        device = rows.device.type
        if rows.dtype != torch.float32 or not torch.is_autocast_enabled(device):
            return None
        key = (rows._version, torch.get_autocast_dtype(device), torch.is_grad_enabled())
        if self._of is None or self._of() is not rows or self._key != key:
            self._of, self._key, self._cast = weakref.ref(rows), key, rows.to(key[1])
        return (self._cast, *inputs[1:])

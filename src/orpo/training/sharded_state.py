"""Weights and optimizer state of a divided body, made whole for a file and divided again: a checkpoint is the same however it was trained.

What is gathered is gathered by all processes together, tensor by tensor, and kept by the first, in its main memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orpo.engine.sharded import is_sharded
from orpo.training.ranks import is_first

Weights = Mapping[str, Tensor]


def whole_weights(body: Any) -> Weights | None:
    """On the first process the weights of a divided `body` by their names, of a PEFT model those that are trained; elsewhere none of them.

    None for a body that is not divided: it has them itself. Tied weights are one tensor, as in the body.
    """
    if not is_sharded(body):
        return None
    is_adapter = hasattr(body, "peft_config")
    gathered: dict[int, Tensor | None] = {}
    found: dict[str, Tensor] = {}
    for name, value in body.state_dict(keep_vars=True).items():
        if is_adapter and not value.requires_grad:
            continue
        if id(value) not in gathered:
            gathered[id(value)] = _whole(value.detach())
        whole = gathered[id(value)]
        if whole is not None:
            found[name] = whole
    return found


def whole_optimizer_state(optimizer: Any) -> dict[str, Any]:
    """The state of `optimizer` as it would be without division, on the first process; elsewhere without its tensors."""
    state = optimizer.state_dict()
    whole = {key: {name: _whole(value) for name, value in moments.items()} for key, moments in state["state"].items()}
    return {**state, "state": whole}


def load_divided(optimizer: Any, schedule: Any, checkpoint: Path) -> None:
    """Nothing; `optimizer`, whose parameters are divided, has this process's part of the state in `checkpoint`, `schedule` its own."""
    from torch.distributed.tensor import distribute_tensor

    schedule.load_state_dict(torch.load(checkpoint / "scheduler.pt", weights_only=True))
    # Mapped, not read: of a state that no process could hold, each copies its part.
    saved = torch.load(checkpoint / "optimizer.pt", map_location="cpu", mmap=True, weights_only=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    keys = [key for group in saved["param_groups"] for key in group["params"]]
    for parameter, key in zip(parameters, keys, strict=True):
        for name, value in saved["state"].get(key, {}).items():
            if value.shape == parameter.shape and value.ndim:
                # Every process has the file, so none has to send anything.
                saved["state"][key][name] = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    optimizer.load_state_dict(saved)


def _whole(value: Any) -> Any:
    """`value`; of a divided tensor all of it in main memory on the first process, None on others."""
    if not hasattr(value, "full_tensor"):
        return value
    full = value.full_tensor()
    return full.cpu() if is_first() else None

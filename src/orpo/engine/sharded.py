"""A body whose weights are divided among processes: torch's FSDP2. Each layer is gathered for the moment in which it computes.

A whole body enters on every process, and the same object leaves divided. Everything that then runs it goes through `as_forward`, on all
processes together: gathering a layer takes all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from orpo.engine.body import causal_model
from orpo.engine.paths import Path
from orpo.errors import ConfigError

T = TypeVar("T")

FORWARD = "engine_forward"
"""The method of a divided body that runs a function as its forward pass."""


def shard(body: nn.Module, *, dtype: torch.dtype) -> None:
    """Nothing; the weights of `body` are divided among all processes of the group, layer by layer, and the rest of it as one.

    `dtype` is that of the run's matrix products: where it is a half type, a layer is gathered in it, and gradients are added up in fp32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(next(body.parameters()).device.type, (torch.distributed.get_world_size(),))
    # Inputs keep their dtype, as under autocast: the residual stream stays fp32.
    half = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = MixedPrecisionPolicy() if dtype.itemsize >= 4 else half
    for layer in repeated_layers(body):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    # Embeddings and head too are gathered anew for the backward pass, so that between two passes a body is always divided.
    fully_shard(body, mesh=mesh, reshard_after_forward=True)
    setattr(body, FORWARD, _called)
    register_fsdp_forward_method(body, FORWARD)


def require_packs(path: Path) -> None:
    """Nothing; raises ConfigError for a path that runs the model a different number of times on each process."""
    if path not in (Path.SHARED, Path.PACKED):
        raise ConfigError(
            f"sharding is fsdp, but this model computes its rows one by one or padded (path {path}), so often as there are rows",
            doing="dividing the model's weights among processes",
            expected="a model that takes packs: every process then runs it once for each micro-batch",
            fix="set sharding: none",
        )


def repeated_layers(body: nn.Module) -> list[nn.Module]:
    """The layers of `body` that transformers names as units. Raises ConfigError for a model without such."""
    causal = causal_model(body)
    names = set(getattr(causal, "_no_split_modules", None) or ())
    found = [module for module in causal.modules() if type(module).__name__ in names]
    if not found:
        raise ConfigError(
            f"{type(causal).__name__} does not say which layers it is made of",
            doing="dividing the model's weights among processes",
            expected="_no_split_modules in its class, as in most models of transformers",
            fix="set sharding: none",
        )
    return found


def is_sharded(body: nn.Module) -> bool:
    """Whether the weights of `body` are divided among processes."""
    return hasattr(body, FORWARD)


def as_forward(body: nn.Module, compute: Callable[[], T]) -> T:
    """What `compute()` gives; where `body` is divided it runs as the forward pass of it, so that weights are there and gradients travel.

    The engine calls the layers and the head by themselves and not the body, whose own hooks would see nothing.
    """
    run: Any = getattr(body, FORWARD, _called)
    result: T = run(compute)
    return result


def _called(compute: Callable[[], T]) -> T:
    return compute()

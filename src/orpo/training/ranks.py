"""One process or several: who prints and writes, and how what the first one decided reaches the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TypeVar

from orpo.errors import ConfigError, StorageError

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others. The first may answer prompts or write a model meanwhile; one that has died is noticed by what
started it, which ends the others."""


def is_first() -> bool:
    """True for the process that prints and writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def planned_ranks(num_processes: int | str) -> int:
    """How many processes a run with this setting has on this machine: those that were started, or those that will be."""
    if "WORLD_SIZE" in os.environ:
        return world_size()
    import torch

    return max(1, torch.cuda.device_count()) if num_processes == "auto" else int(num_processes)


def require_ranks(num_processes: int | str, sharding: str) -> None:
    """Nothing; raises ConfigError where the settings ask for other processes than there are."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size())))
    if num_processes not in ("auto", here):
        started = f"{here} were started by what set WORLD_SIZE" if "WORLD_SIZE" in os.environ else "this one was started alone"
        raise ConfigError(
            f"num_processes is {num_processes}, but {started}",
            expected="processes that `orpo train` or `orpo.train` starts, or a launcher, not both",
            fix="remove num_processes",
        )
    if sharding != "none" and world_size() == 1:
        raise ConfigError(
            f"sharding is {sharding}, but there is one process, which has none to divide weights with",
            expected="two processes or more",
            fix="set num_processes, or sharding: none",
        )


def start_ranks() -> None:
    """Nothing; the process group stands when several processes were started (WORLD_SIZE > 1), and nothing happened otherwise.

    Raises ConfigError where accelerate was told to divide the model by itself: two would do it.
    """
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        if os.environ.get(name, "").lower() in ("1", "true"):
            raise ConfigError(
                f"{name} is set: the configuration of accelerate divides the model",
                expected="processes alone from accelerate; what they divide is a setting of this command",
                fix="set distributed_type: MULTI_GPU there, and sharding: fsdp here",
            )
    if world_size() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def end_ranks() -> None:
    """Nothing; the process group is closed on all ranks together. Left open, its threads can abort the process at exit."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives on the first rank, on every rank. Its error, too: no rank is left waiting for one that has gone."""
    import torch

    if not torch.distributed.is_initialized():
        return make()
    box: list[T | BaseException | None] = [None]
    if is_first():
        try:
            box[0] = make()
        except Exception as error:
            box[0] = error
    torch.distributed.broadcast_object_list(box, src=0)
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]  # type: ignore[return-value]


def in_step(batches: Iterable[list[T]]) -> list[list[T]]:
    """`batches`, and as many empty ones as it takes until every process has the same number: each runs the model as often as the others."""
    import torch

    mine = list(batches)
    if not torch.distributed.is_initialized():
        return mine
    nums: list[int] = [0] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(nums, len(mine))
    return mine + [[] for _ in range(max(nums) - len(mine))]


def gathered(mine: Sequence[T]) -> list[T]:
    """The items of all ranks, in the order of the ranks, on every rank."""
    import torch

    if not torch.distributed.is_initialized():
        return list(mine)
    parts: list[Sequence[T]] = [()] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return [item for part in parts for item in part]


@contextmanager
def all_or_none() -> Iterator[None]:
    """When the block fails on one rank it fails on all: none is left waiting in a barrier for one that has gone."""
    import torch

    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if torch.distributed.is_initialized():
        failures: list[str | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(failures, None if failure is None else str(failure))
        first = next((text for text in failures if text), None)
        if first and failure is None:
            raise StorageError(f"another process could not write its part: {first}")
    if failure is not None:
        raise failure


@contextmanager
def held_by_first(context: AbstractContextManager[T]) -> Iterator[T]:
    """The value of `context`, entered on the first rank alone, on every rank."""
    entered = False

    def enter() -> T:
        nonlocal entered
        value = context.__enter__()
        entered = True
        return value

    value = from_first(enter)
    try:
        yield value
    except BaseException as error:
        if entered:
            context.__exit__(type(error), error, error.__traceback__)
        raise
    else:
        if entered:
            context.__exit__(None, None, None)

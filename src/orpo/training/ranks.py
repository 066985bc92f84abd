"""One process or several: who prints and writes, and how what the first one decided reaches the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from orpo.errors import StorageError

T = TypeVar("T")


def is_first() -> bool:
    """True for the process that prints and writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def start_ranks() -> None:
    """Nothing; the process group stands when a launcher started several processes (WORLD_SIZE > 1), and nothing happened otherwise."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


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

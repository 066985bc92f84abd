"""The runs of one page and what they are called on it: folders enter, named runs leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orpo.errors import UserError
from orpo.runs.summary import RunData, read_run

MAX_RUNS = 12
"""So many lines can be told apart on a chart, and so many columns in a table."""


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run under a name that no other run of the page has; `style` is its colour and dash in comparison.css."""

    name: str
    style: str
    data: RunData


def read_runs(folders: Sequence[Path]) -> tuple[NamedRun, ...]:
    """The runs in `folders`, in this order. UserError for what is no run, for one that stands twice, and for more than MAX_RUNS."""
    if len(folders) > MAX_RUNS:
        raise UserError(f"{len(folders)} runs do not fit on one page", doing="reading runs", expected=f"at most {MAX_RUNS}")
    resolved = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UserError("this run stands twice in the list", where=str(folder), doing="reading runs", fix="name each run once")
    runs = [read_run(folder) for folder in folders]
    return tuple(NamedRun(name, f"r{i}", run) for i, (name, run) in enumerate(zip(unique_names(resolved), runs, strict=True)))


def unique_names(folders: Sequence[Path]) -> list[str]:
    """The name of each folder, with as many of its parents in front as it takes to tell it from the others."""
    return ["/".join(folder.parts[-_depth(folder, folders) :]) for folder in folders]


def _depth(folder: Path, folders: Sequence[Path]) -> int:
    depths = range(1, len(folder.parts))
    return next(
        (depth for depth in depths if sum(other.parts[-depth:] == folder.parts[-depth:] for other in folders) == 1), len(folder.parts)
    )

"""Which split of a dataset is read, and the words for it when nobody named one."""

from __future__ import annotations

from collections.abc import Iterable

from orpo.data.row import Problem
from orpo.errors import DataError

PREFERRED = ("train_prefs", "train")
"""Read, and said, when several splits exist and none was named: UltraFeedback's pairs for preference training, then the usual name."""


def chosen_split(available: Iterable[str], asked: str | None, *, where: str) -> tuple[str, list[Problem]]:
    """The split to read and what to tell about the choice. Raises `DataError` listing the splits when there is no safe choice."""
    names = list(available)
    listed = ", ".join(names)
    if asked is not None:
        if asked not in names:
            raise DataError(
                f"there is no split {asked!r}", where=where, expected=f"one of: {listed}", fix=f"name it after a colon: {where}:{names[0]}"
            )
        return asked, []
    if len(names) == 1:
        return names[0], []
    split = next((name for name in PREFERRED if name in names), None)
    if split is None:
        raise DataError("there are several splits and none was named", where=where, expected=f"one of: {listed}", fix=f"{where}:{names[0]}")
    others = ", ".join(name for name in names if name != split)
    message = f"{where}: read the split {split}; not read: {others}"
    return split, [Problem("split-chosen", message, None, severity="warning", fix=f"name another after a colon, such as {where}:SPLIT")]

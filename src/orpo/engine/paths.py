"""The four ways to log-probs, fastest first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Path(StrEnum):
    """How log-probs are computed. All give the same numbers; a path that does not is not taken."""

    SHARED = "shared"
    """One pack of distinct tokens: prompts once."""
    PACKED = "packed"
    """One pack; each completion has its prompt before it."""
    PADDED = "padded"
    """Rows of like length, padded."""
    PLAIN = "plain"
    """Each row alone."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The path taken, and for each faster one why it was not."""

    path: Path
    refused: tuple[tuple[Path, str], ...] = ()

    def __str__(self) -> str:
        why = "; ".join(f"not {path}: {reason}" for path, reason in self.refused)
        return f"{SAID[self.path]} ({why or 'checked against single rows at the start'})"


SAID = {
    Path.SHARED: "each pair's distinct tokens once, in one pack",
    Path.PACKED: "rows in one pack, prompts twice",
    Path.PADDED: "padded rows of like length",
    Path.PLAIN: "one row at a time, the slow way",
}

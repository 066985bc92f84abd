"""What a reader raises when a row cannot become a pair; `Shape.to_pairs` turns it into a `Problem` with the row's place."""

from __future__ import annotations

from orpo.core.records import Source
from orpo.data.row import Problem, Severity


class RowProblem(Exception):
    """Why this row yields no pair: an error, or (severity 'dropped') a row that is left out and counted."""

    def __init__(self, kind: str, message: str, *, fix: str = "", severity: Severity = "error") -> None:
        super().__init__(message)
        self.kind, self.message, self.fix, self.severity = kind, message, fix, severity

    def at(self, source: Source) -> Problem:
        """The problem with its place."""
        return Problem(self.kind, self.message, source, self.severity, self.fix)


def dropped(kind: str, message: str) -> RowProblem:
    """A reason to leave the row out and count it."""
    return RowProblem(kind, message, severity="dropped")

"""Blank lines of a text file: skipped, counted, and told once."""

from __future__ import annotations

from orpo.core.records import Source
from orpo.data.row import Problem


class BlankLines:
    """A count of blank lines between rows. Those at the end of a file are no news unless nothing else is in it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._between = self._pending = self._first = 0
        self._any_row = False

    def add(self, number: int) -> None:
        """A blank line was met."""
        self._pending += 1
        self._first = self._first or number

    def end(self) -> None:
        """Something that is not blank was met."""
        self._any_row = True
        self._between += self._pending
        self._pending = 0

    def problems(self) -> list[Problem]:
        """What to tell at the end of the file: nothing, a count, or that the file is blank throughout."""
        if not self._any_row:
            message = f"the file holds {self._pending} blank lines and no rows"
            return [Problem("blank-file", message, Source(self._name, 1), fix="check how the file was written")] if self._pending else []
        if not self._between:
            return []
        many = "a blank line was" if self._between == 1 else f"{self._between} blank lines were"
        return [Problem("blank-lines", f"{many} skipped between rows, the first here", Source(self._name, self._first), severity="warning")]

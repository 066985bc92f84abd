"""The two things a data file yields: rows, and problems with their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orpo.core.records import Source

Severity = Literal["error", "dropped", "warning"]


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a data file, as it stands there."""

    value: Mapping[str, Any]
    source: Source


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a row (or a whole file) worth telling: an error, a row dropped and counted, or a warning.

    `kind` is a slug that is counted, such as 'malformed-json'. `message` says what was found and what was expected;
    `fix` what to do. `source` is None where the problem belongs to no row.
    """

    kind: str
    message: str
    source: Source | None
    severity: Severity = "error"
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.source}: {self.message}" if self.source else self.message
        return f"{text}\n  to fix:   {self.fix}" if self.fix else text

"""The error tree. Every error says what was being done, where, what was found and expected, and what to do.

OrpoError                 exit 1    failed while running
├── UserError             exit 2    something the user gave us
│   ├── ConfigError       exit 2    a flag, a key of the YAML, two settings that contradict
│   └── DataError         exit 3    a data file, with file:line
├── GateError             exit 4    a required figure was not reached
├── NotFiniteError        exit 5    loss or gradients are not finite
├── StorageError          exit 6    disk full, no permission
├── OutOfMemoryError      exit 7    the step does not fit
├── CheckpointError       exit 8    no valid, or no trusted checkpoint
├── RunLockedError        exit 9    another process writes this run
└── InterruptedRun        exit 130 or 143, after a valid checkpoint was saved
"""

from __future__ import annotations


class OrpoError(Exception):
    """An error with its four parts; `str()` gives the message a person reads, beginning with the place when there is one."""

    exit_code = 1

    def __init__(self, problem: str, *, where: str = "", doing: str = "", expected: str = "", fix: str = "") -> None:
        self.problem, self.where, self.doing, self.expected, self.fix = problem, where, doing, expected, fix
        super().__init__(problem)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.problem}" if self.where else self.problem]
        for label, text in (("while", self.doing), ("expected", self.expected), ("to fix", self.fix)):
            if text:
                lines.append(f"  {label + ':':<10}{text}")
        return "\n".join(lines)


class UserError(OrpoError):
    """Something the user gave us cannot be used."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(UserError):
    """Data cannot be used; `where` is file:line (row number for arrow and Hub data)."""

    exit_code = 3


class GateError(OrpoError):
    """A figure required with --require was not reached."""

    exit_code = 4


class NotFiniteError(OrpoError):
    """Loss or gradients were not finite; weights were left as they were."""

    exit_code = 5


class StorageError(OrpoError):
    """A file could not be written; what was there before is intact."""

    exit_code = 6


class OutOfMemoryError(OrpoError):
    """A step does not fit into memory."""

    exit_code = 7


class CheckpointError(OrpoError):
    """There is no checkpoint that can be trusted, or it belongs to another run."""

    exit_code = 8


class RunLockedError(OrpoError):
    """Another process writes this run directory."""

    exit_code = 9


class InterruptedRun(OrpoError):
    """A signal stopped the run at a step boundary, after a valid checkpoint."""

    def __init__(self, problem: str, *, signal_number: int = 2, **parts: str) -> None:
        super().__init__(problem, **parts)
        self.exit_code = 128 + signal_number

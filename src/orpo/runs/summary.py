"""A run as a whole: what it came to enters and is written to summary.json; everything the report room needs leaves, read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from orpo.errors import StorageError, UserError
from orpo.runs.atomic import write_json_atomic
from orpo.runs.evaluations import Evaluation, read_evaluations
from orpo.runs.jsontext import read_strictly
from orpo.runs.metrics import Row, read_metrics
from orpo.runs.names import CARD, CONFIG, DATA_REPORT, ENVIRONMENT, HELD_OUT, METRICS, SAMPLES, SUMMARY
from orpo.runs.storage import storage_errors

Status = Literal["running", "done", "failed", "interrupted"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run stands. Times are ISO 8601 in UTC; `seconds` counts all sessions together; `error` is the message of a failed run.

    `sections` is what other rooms add under their own name (`evaluation`, `cost`, `model`), plain JSON.
    """

    status: Status
    command: tuple[str, ...]
    started: str
    finished: str | None = None
    seconds: float = 0.0
    steps: int = 0
    exit_code: int | None = None
    error: str | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)

    def with_section(self, name: str, content: Any) -> RunSummary:
        """The same summary with `sections[name]` set."""
        return replace(self, sections={**self.sections, name: content})


@dataclass(frozen=True, slots=True)
class RunData:
    """Everything a report reads; None for a file that is not there."""

    path: Path
    config_text: str | None
    metrics: tuple[Row, ...] | None
    samples: tuple[Row, ...] | None
    data_report: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None
    summary: RunSummary | None
    card_text: str | None
    evaluations: tuple[Evaluation, ...] = ()
    held_out: tuple[Row, ...] | None = None

    @property
    def name(self) -> str:
        """The name of the run directory."""
        return self.path.resolve().name


def write_summary(run_dir: Path, summary: RunSummary) -> None:
    """Nothing; summary.json holds `summary`, secrets redacted."""
    write_json_atomic(run_dir / SUMMARY, {item.name: getattr(summary, item.name) for item in fields(summary)})


def read_summary(run_dir: Path) -> RunSummary:
    """The summary of a run. StorageError when summary.json is missing or damaged."""
    path = run_dir / SUMMARY
    value = _read_object(path)
    try:
        return _summary(value)
    except (TypeError, ValueError) as error:
        raise _damaged(path, f"does not hold a run's summary ({error})") from None


def read_run(run_dir: Path) -> RunData:
    """Everything in a run directory that a report needs, of a run that may still be going.

    UserError when it is no run directory; StorageError naming the file when one is damaged.
    """
    if not run_dir.is_dir():
        raise _not_a_run(run_dir, "there is no such folder" if not run_dir.exists() else "this is a file, not a folder")
    run = RunData(
        path=run_dir,
        config_text=_if_there(run_dir / CONFIG, _read_text),
        metrics=_if_there(run_dir / METRICS, lambda path: tuple(read_metrics(path))),
        samples=_if_there(run_dir / SAMPLES, lambda path: tuple(read_metrics(path))),
        data_report=_if_there(run_dir / DATA_REPORT, _read_object),
        environment=_if_there(run_dir / ENVIRONMENT, _read_object),
        summary=_if_there(run_dir / SUMMARY, lambda path: read_summary(path.parent)),
        card_text=_if_there(run_dir / CARD, _read_text),
        evaluations=read_evaluations(run_dir),
        held_out=_if_there(run_dir / HELD_OUT, lambda path: tuple(read_metrics(path))),
    )
    # A README alone is in any folder.
    if all(part is None for part in (run.config_text, run.metrics, run.data_report, run.environment, run.summary)):
        raise _not_a_run(run_dir, f"this folder holds no run (no {CONFIG}, {METRICS} or {SUMMARY})")
    return run


def _if_there(path: Path, read: Callable[[Path], T]) -> T | None:
    return read(path) if path.exists() else None


def _read_text(path: Path) -> str:
    try:
        with storage_errors(path, "reading a run"):
            return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, f"is not UTF-8 text (byte {error.start})") from None


def _read_object(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        value = read_strictly(text)
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(value, dict):
        raise _damaged(path, "does not hold a JSON object")
    return value


def _summary(value: Mapping[str, Any]) -> RunSummary:
    summary = RunSummary(**{**value, "command": tuple(value.get("command", ()))})
    if summary.status not in get_args(Status):
        raise ValueError(f"status {summary.status!r}, expected one of {', '.join(get_args(Status))}")
    numbers = (summary.seconds, summary.steps)
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers) or not isinstance(summary.steps, int):
        raise ValueError(f"seconds {summary.seconds!r} and steps {summary.steps!r}, numbers are expected")
    if not isinstance(summary.started, str) or not isinstance(summary.sections, dict):
        raise ValueError(f"started {summary.started!r} and sections {type(summary.sections).__name__}, a time and an object are expected")
    return summary


def _damaged(path: Path, what: str) -> StorageError:
    return StorageError(
        f"the file is damaged: it {what}",
        where=str(path),
        doing="reading a run",
        fix="bring back a good copy, or delete the file: the report then shows that part as not there",
    )


def _not_a_run(path: Path, what: str) -> UserError:
    return UserError(
        what, where=str(path), doing="reading a run", expected="a run directory, as `orpo train` writes it", fix="check the path"
    )

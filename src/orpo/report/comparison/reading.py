"""compare.json: the file that `orpo compare` writes enters, a `Comparison` leaves. What was not measured is None or absent, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orpo.errors import StorageError, UserError
from orpo.report.escape import clipped
from orpo.report.facts import mapping, sequence
from orpo.report.numbers import as_number
from orpo.report.series import Row
from orpo.runs.jsontext import read_strictly
from orpo.runs.names import COMPARISON
from orpo.runs.storage import storage_errors

FORMAT = 1
Better = Literal["higher", "lower", "none"]
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure by which pipelines are compared, and which of two values of it is the better one."""

    id: str
    title: str
    unit: str
    better: Better
    note: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval, the means of single seeds, and how many items (prompts or pairs) each seed was measured on."""

    mean: float
    low: float | None
    high: float | None
    per_seed: tuple[float, ...] = ()
    num_items: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt of the tuning of a stage."""

    stage: int
    settings: Values
    metric: float | None
    is_chosen: bool
    error: str | None
    shared_with: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a pipeline as it was run after tuning."""

    objective: str
    settings: Values
    num_steps: float | None
    cost: Values
    curve: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a pipeline (first seed) and the untrained model answered to a prompt."""

    prompt: Any
    base: Any
    reply: Any
    verdict: Values


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One way to train: its stages, what it scored, how it differs from the baseline, and what it cost."""

    name: str
    is_baseline: bool
    stages: tuple[Stage, ...]
    trials: tuple[Trial, ...]
    scores: Mapping[str, Estimate]
    against: Mapping[str, Estimate]
    total: Values
    tuning: Values
    replies: tuple[Reply, ...]

    @property
    def num_seeds(self) -> int:
        """How many seeds its scores stand on."""
        return max((len(score.per_seed) for score in self.scores.values()), default=0)


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that did not come to its end."""

    pipeline: str
    stage: float | None
    seed: float | None
    error: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of compare.json."""

    name: str
    status: str
    command: tuple[str, ...]
    started: str | None
    finished: str | None
    seconds: float | None
    environment: Values
    equal: Values
    tuned_by: Values
    metrics: tuple[Metric, ...]
    base: Mapping[str, Estimate]
    pipelines: tuple[Pipeline, ...]
    failures: tuple[Failure, ...]

    @property
    def baseline(self) -> Pipeline | None:
        """The pipeline that the others are compared with."""
        return next((pipeline for pipeline in self.pipelines if pipeline.is_baseline), None)

    @property
    def num_seeds(self) -> int:
        """How many seeds each pipeline was to be trained with."""
        return len(sequence(self.equal.get("seeds")))


def read_comparison(folder: Path) -> Comparison:
    """The comparison in `folder`. UserError when there is none, StorageError when its file is damaged or of another format."""
    path = folder / COMPARISON
    if not path.is_file():
        raise UserError(
            f"this folder holds no comparison (no {COMPARISON})" if folder.is_dir() else "there is no such folder",
            where=str(folder),
            doing="reading a comparison",
            expected="a folder that `orpo compare` wrote",
            fix="check the path",
        )
    try:
        with storage_errors(path, "reading a comparison"):
            value = read_strictly(path.read_bytes().decode("utf-8"))
        return _comparison(value)
    except UnicodeDecodeError as error:
        raise _damaged(path, f"is not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, what: str) -> StorageError:
    return StorageError(
        f"the file is damaged: it {what}", where=str(path), doing="reading a comparison", fix="run the same `orpo compare` command again"
    )


def _comparison(value: Any) -> Comparison:
    if not isinstance(value, dict):
        raise ValueError("does not hold a JSON object")
    if value.get("format") != FORMAT:
        raise ValueError(f"has format {value.get('format')!r}, this version of orpo reads {FORMAT}")
    return Comparison(
        name=_word(value, "name", "comparison"),
        status=_word(value, "status", "running"),
        command=tuple(str(word) for word in sequence(value.get("command"))),
        started=_maybe(value, "started"),
        finished=_maybe(value, "finished"),
        seconds=as_number(value.get("seconds")),
        environment=mapping(value.get("environment")),
        equal=mapping(value.get("equal")),
        tuned_by=mapping(value.get("tuned_by")),
        metrics=tuple(_metric(part) for part in _objects(value, "metrics")),
        base=_estimates(mapping(value.get("base")).get("scores")),
        pipelines=tuple(_pipeline(part) for part in _objects(value, "pipelines")),
        failures=tuple(_failure(part) for part in _objects(value, "failures")),
    )


def _metric(value: Values) -> Metric:
    better = value.get("better")
    name = _word(value, "id", "")
    known: Better = better if better in ("higher", "lower") else "none"
    title, note = clipped(_word(value, "title", name), 60), clipped(_word(value, "note", ""), 240)
    return Metric(name, title, clipped(_word(value, "unit", ""), 30), known, note)


def _pipeline(value: Values) -> Pipeline:
    cost, curves = mapping(value.get("cost")), _objects(value, "curves")
    costs = _objects(cost, "stages")
    stages = [_stage(i, part, costs[i] if i < len(costs) else {}, curves) for i, part in enumerate(_objects(value, "stages"))]
    return Pipeline(
        name=_word(value, "name", "unnamed"),
        is_baseline=value.get("baseline") is True,
        stages=tuple(stages),
        trials=tuple(_trial(part) for part in _objects(value, "trials")),
        scores=_estimates(value.get("scores")),
        against=_estimates(value.get("against")),
        total=mapping(cost.get("total")),
        tuning=mapping(cost.get("tuning")),
        replies=tuple(_reply(part) for part in _objects(value, "samples")),
    )


def _stage(i: int, value: Values, cost: Values, curves: tuple[Values, ...]) -> Stage:
    rows = next((_rows(curve) for curve in curves if curve.get("stage") == i), ())
    return Stage(_word(value, "objective", "?"), mapping(value.get("settings")), as_number(value.get("steps")), cost, rows)


def _rows(curve: Values) -> tuple[Row, ...]:
    """The columns of a curve as rows of `step` and what is defined there; a value that is not defined is left out."""
    steps = sequence(curve.get("step"))
    columns = {key: sequence(values) for key, values in curve.items() if key != "step"}
    defined = [{key: values[i] for key, values in columns.items() if i < len(values) and values[i] is not None} for i in range(len(steps))]
    return tuple({"step": step, **values} for step, values in zip(steps, defined, strict=True))


def _trial(value: Values) -> Trial:
    stage = as_number(value.get("stage"))
    shared = tuple(str(name) for name in sequence(value.get("shared_with")))
    settings, metric = mapping(value.get("settings")), as_number(value.get("metric"))
    return Trial(int(stage or 0), settings, metric, value.get("chosen") is True, _maybe(value, "error"), shared)


def _reply(value: Values) -> Reply:
    return Reply(value.get("prompt"), value.get("base"), value.get("reply"), mapping(value.get("verdict")))


def _failure(value: Values) -> Failure:
    return Failure(
        _word(value, "pipeline", "?"), as_number(value.get("stage")), as_number(value.get("seed")), _word(value, "error", "no message")
    )


def _estimates(value: Any) -> dict[str, Estimate]:
    found = {str(name): _estimate(mapping(part)) for name, part in mapping(value).items()}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _estimate(value: Values) -> Estimate | None:
    mean = as_number(value.get("mean"))
    if mean is None:
        return None
    low, high, num_items = (as_number(value.get(key)) for key in ("low", "high", "num_items"))
    seeds = [as_number(seed) for seed in sequence(value.get("per_seed"))]
    return Estimate(mean, low, high, tuple(seed for seed in seeds if seed is not None), num_items)


def _objects(value: Values, name: str) -> tuple[Values, ...]:
    return tuple(part for part in sequence(value.get(name)) if isinstance(part, Mapping))


def _word(value: Values, name: str, absent: str) -> str:
    return absent if value.get(name) is None else str(value[name])


def _maybe(value: Values, name: str) -> str | None:
    return None if value.get(name) is None else str(value[name])

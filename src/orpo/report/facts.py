"""What a run directory says, under one name each: `RunData` enters, measurements with their place leave. Absent stays absent (None)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import yaml

from orpo.core.intervals import wilson_interval
from orpo.report.numbers import as_number, count
from orpo.report.series import Row
from orpo.runs.summary import RunData


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The model on the held-out pairs at one moment; `when` says which. Log-probs and NLL in nats per token."""

    when: str
    num_pairs: float | None
    accuracy: float | None
    low: float | None
    high: float | None
    nll: float | None
    chosen: float | None
    rejected: float | None

    @property
    def margin(self) -> float | None:
        """Mean log p of chosen minus that of rejected."""
        return None if self.chosen is None or self.rejected is None else self.chosen - self.rejected


def fact(run: RunData, name: str) -> Any:
    """`name` from the sections of summary.json: a section of that name, or else a value of that name within any section; None if absent."""
    sections = run.summary.sections if run.summary else {}
    if name in sections:
        return sections[name]
    inner = (section[name] for section in sections.values() if isinstance(section, Mapping) and name in section)
    return next(inner, None)


def number(run: RunData, name: str) -> float | None:
    """A figure from summary.json, None if it is absent or not finite."""
    return as_number(fact(run, name))


def text(run: RunData, name: str) -> str | None:
    """A word from summary.json, or else from the config; None if absent."""
    value = fact(run, name)
    if isinstance(value, Mapping):
        value = value.get(name, value.get("name"))
    value = setting(run, name) if value is None else value
    return None if value is None else str(value)


def settings(run: RunData) -> Mapping[str, Any]:
    """The resolved config as an object; empty where there is none, or it is no YAML object."""
    return _config(run.config_text or "")


def setting(run: RunData, name: str) -> Any:
    """`name` from the resolved config, at its top or one level down; None if it is not set or the file is not YAML."""
    config = settings(run)
    if name in config and not isinstance(config[name], Mapping):
        return config[name]
    return next((part[name] for part in config.values() if isinstance(part, Mapping) and name in part), None)


@lru_cache(maxsize=4)
def _config(text: str) -> Mapping[str, Any]:
    """The config as an object; empty if it is none: the page shows the text of the file all the same."""
    try:
        return mapping(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that is none, such as 2026-99-99
        return {}


def beta(run: RunData) -> float | None:
    """The weight of the odds part; None where the objective has none."""
    value = number(run, "beta")
    return as_number(setting(run, "beta")) if value is None else value


def model_name(run: RunData) -> str | None:
    """The model as a person calls it: of a path on somebody's disk only its last part (the settings hold the whole)."""
    name = text(run, "model")
    return PurePath(name).name if name and PurePath(name).is_absolute() else name


def reached(run: RunData) -> int:
    """The last step that is known to have been made: a run that failed says so in its metrics only."""
    logged = (as_number(row.get("step")) for row in rows(run, "train"))
    return max([run.summary.steps if run.summary else 0, *(int(step) for step in logged if step is not None)])


def libraries(run: RunData) -> dict[str, str]:
    """Name -> version, Python first."""
    environment = mapping(run.environment)
    python = {"python": environment["python"]} if "python" in environment else {}
    return {str(name): str(version) for name, version in {**python, **mapping(environment.get("libraries"))}.items()}


def data_files(run: RunData) -> list[tuple[str, Mapping[str, Any]]]:
    """(what for, file) for each file that was read: path, size in bytes, sha256."""
    report = mapping(run.data_report)
    parts = (("training", report), ("held out", mapping(report.get("eval_data"))))
    return [(use, mapping(item) or {"path": item}) for use, part in parts for item in sequence(part.get("files"))]


def rows(run: RunData, split: str) -> tuple[Row, ...]:
    """The rows of metrics.jsonl of one split, 'train' or 'eval'."""
    return tuple(row for row in run.metrics or () if row.get("split") == split)


def held_out(run: RunData) -> tuple[HeldOut | None, HeldOut | None]:
    """(start, end): as evaluated before and after training, or else the first and the last held-out rows of metrics.jsonl."""
    evaluation = mapping(fact(run, "evaluation"))
    logged = [row for row in rows(run, "eval") if as_number(row.get("step")) is not None] or [{}]
    before, after = (mapping(evaluation.get(key)) or row for key, row in (("before", logged[0]), ("after", logged[-1])))
    # One measurement is an end, not a start as well.
    is_one = "step" in before and before.get("step") == after.get("step")
    start = _measured(before, _when(before, 0, "before training")) if before and not is_one else None
    last = run.summary.steps if run.summary else None
    return start, _measured(after, _when(after, last, "after training")) if after else None


def oracle(run: RunData) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(start, end) of the built-in world's oracle; empty where there is none."""
    found = mapping(fact(run, "oracle"))
    return mapping(found.get("before")), mapping(found.get("after"))


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def _when(values: Mapping[str, Any], step: int | None, name: str) -> str:
    """`name` for a measurement of that step, or of no step at all; the step in words for any other."""
    found = as_number(values.get("step"))
    return name if found is None or found == step else f"at step {count(found)}"


def _measured(values: Mapping[str, Any], when: str) -> HeldOut:
    """One measurement; an interval that the file does not hold is computed from accuracy and number of pairs."""
    num = as_number(values.get("num_pairs"))
    accuracy = as_number(values.get("accuracy", values.get("rewards/accuracies")))
    low, high = as_number(values.get("accuracy_low")), as_number(values.get("accuracy_high"))
    if (low is None or high is None) and accuracy is not None and 0 <= accuracy <= 1 and num is not None and num >= 1:
        low, high = wilson_interval(accuracy * num, int(num))
    places = (as_number(values.get(key)) for key in ("nll_loss", "logps/chosen", "logps/rejected"))
    return HeldOut(when, num, accuracy, low, high, *places)

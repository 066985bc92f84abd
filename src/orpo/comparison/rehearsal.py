"""How long a step takes here: a few steps of each objective, as many at a time as stages will run, measured once for a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orpo.comparison.processes import Processes
from orpo.comparison.setup import REHEARSED_STEPS, Pace
from orpo.comparison.worker import RUN, Work, read_failure, read_result
from orpo.errors import OrpoError
from orpo.runs import names
from orpo.runs.atomic import write_json_atomic
from orpo.runs.jsontext import read_strictly
from orpo.runs.metrics import read_metrics
from orpo.training.config import ResolvedConfig
from orpo.training.config_fields import reference_way

FILE = "rehearsal.json"


def rehearsed(
    folder: Path, settings: Mapping[str, ResolvedConfig], *, jobs: int, threads: int, say: Callable[[str], None]
) -> Mapping[str, Pace]:
    """Objective -> its pace, read from `folder` where it was measured before: a comparison that goes on keeps its steps."""
    path = folder / FILE
    if path.exists():
        return {name: (pace[0], pace[1]) for name, pace in read_strictly(path.read_text(encoding="ascii")).items()}
    say(f"rehearsal    {REHEARSED_STEPS} steps of {', '.join(settings)}, to turn seconds into steps")
    todo = [
        Work(f"rehearsal-{name}", name, str(folder / "rehearsal" / name), resolved, (), world=False, threads=threads)
        for name, resolved in settings.items()
    ]
    with Processes(jobs) as processes:
        while todo or processes.running:
            while todo and processes.has_room:
                processes.start(todo.pop(0))
            processes.ended(timeout=1.0)
    paces = {name: _pace(folder / "rehearsal" / name, name, resolved) for name, resolved in settings.items()}
    write_json_atomic(path, paces)
    return paces


def _pace(folder: Path, name: str, resolved: ResolvedConfig) -> Pace:
    """Seconds of a step, from the later two thirds of the steps, and seconds before the first. Raises OrpoError where the run failed."""
    result = read_result(folder, name)
    if result is None:
        failure = read_failure(folder, name) or {"error": "its process was ended"}
        raise OrpoError(f"{name} cannot be trained: {failure['error']}", where=str(folder), doing="measuring how long a step takes")
    rows = [row for row in read_metrics(folder / RUN / names.METRICS) if row["split"] == "train"]
    first = rows[len(rows) // 3]
    step = (rows[-1]["seconds"] - first["seconds"]) / (rows[-1]["step"] - first["step"])
    return step + _baseline_seconds(result["cost"], resolved), _once_seconds(result["cost"], resolved)


def _once_seconds(cost: Mapping[str, Any], resolved: ResolvedConfig) -> float:
    """What making the reference ready takes, whatever the number of steps."""
    if not cost["reference_tokens"] or reference_way(resolved.config) != "precomputed":
        return float(cost["reference_seconds"])
    return float(cost["reference_seconds"] * (1 - _baseline_tokens(cost) / cost["reference_tokens"]))


def _baseline_seconds(cost: Mapping[str, Any], resolved: ResolvedConfig) -> float:
    """What a step adds to it: the reference of its baseline is computed before training too."""
    if not cost["reference_tokens"] or reference_way(resolved.config) != "precomputed":
        return 0.0
    return float(cost["reference_seconds"] * _baseline_tokens(cost) / cost["reference_tokens"] / REHEARSED_STEPS)


def _baseline_tokens(cost: Mapping[str, Any]) -> float:
    return float(cost["policy_tokens"] - cost["num_tokens"])

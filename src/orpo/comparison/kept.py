"""What a comparison keeps on disk of its stages: results are read back, models that nothing starts from any more are deleted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orpo.comparison.stages import Outcome, Plan, Training
from orpo.comparison.worker import FAILURE, MODEL, read_failure, read_result, tidy
from orpo.errors import NotFiniteError

STAGES = "stages"

Results = dict[str, dict[str, Any]]


def stage_folder(folder: Path, name: str) -> Path:
    """Where the stage called `name` leaves what it comes to."""
    return folder / STAGES / name


def recalled(plan: Plan, folder: Path) -> tuple[Results, dict[str, Outcome]]:
    """Results and outcomes of earlier sessions. A stage that was not finite is not tried again; every other failure is.

    What is decided next follows from what ended, so that it is looked for until nothing new is found.
    """
    results: Results = {}
    outcomes: dict[str, Outcome] = {}
    while found := {
        name: training for name, training in plan.trainings(outcomes).items() if name not in outcomes and _has_ended(folder, training)
    }:
        for name, training in found.items():
            result = read_result(stage_folder(folder, name), training.fingerprint)
            results |= {name: result} if result else {}
            outcomes[name] = outcome_of(plan, folder, training, result)
    for name in plan.needed(outcomes) & results.keys():
        if not (stage_folder(folder, name) / MODEL).is_dir():  # deleted by hand: it is made once more
            del results[name], outcomes[name]
    return results, outcomes


def outcome_of(plan: Plan, folder: Path, training: Training, result: Mapping[str, Any] | None) -> Outcome:
    """How a training ended: with a figure where it was measured, or with an error."""
    if result is None:
        failure = read_failure(stage_folder(folder, training.id), training.fingerprint)
        return Outcome(error=failure["error"] if failure else "its process was ended from outside, perhaps for want of memory")
    return Outcome(tuning_figure(result, plan.config.tune_by)) if training.trial is not None else Outcome()


def tuning_figure(result: Mapping[str, Any], name: str) -> float:
    """The mean of a figure over the pairs that a stage was measured on."""
    measured = result["measured"]
    return float(np.average(measured["items"][name], weights=measured["weights"].get(name)))


def _has_ended(folder: Path, training: Training) -> bool:
    place = stage_folder(folder, training.id)
    if read_result(place, training.fingerprint) is not None:
        tidy(place)  # a process may have been killed between its result and this
        return True
    failure = read_failure(place, training.fingerprint)
    if failure is not None and failure["exit_code"] != NotFiniteError.exit_code:
        (place / FAILURE).unlink()
        return False
    return failure is not None


def drop_models(plan: Plan, folder: Path, outcomes: Mapping[str, Outcome]) -> None:
    """Nothing; the models that no stage starts from any more are deleted. With keep_models those that end a pipeline stay."""
    needed = plan.needed(outcomes)
    for name, training in plan.trainings(outcomes).items():
        is_kept = plan.config.keep_models and training.measured == "held-out"
        if name in outcomes and name not in needed and not is_kept:
            shutil.rmtree(stage_folder(folder, name) / MODEL, ignore_errors=True)

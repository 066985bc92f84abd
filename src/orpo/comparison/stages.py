"""Which trainings a comparison has, and which of them can run now: results so far enter, stages leave. Pure; nothing is run here.

A stage is named by its objective and a hash of all that it follows from, so what two pipelines share is one stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orpo.comparison.config import CompareConfig
from orpo.comparison.figures import figure
from orpo.comparison.grids import Candidate
from orpo.comparison.pipelines import Pipeline
from orpo.comparison.settings import followed_from
from orpo.runs.jsontext import canonical
from orpo.training.config import ResolvedConfig

Measured = Literal["validation", "held-out", ""]


@dataclass(frozen=True, slots=True)
class Training:
    """One training: `id` names its folder, `fingerprint` is a hash of all that it follows from, `parent` the stage it goes on from.

    `measured` says which pairs its model is scored on; '' for a stage that only another one goes on from.
    """

    id: str
    fingerprint: str
    parent: str | None
    objective: str
    candidate: Candidate
    resolved: ResolvedConfig
    steps: int
    seed: int
    measured: Measured
    trial: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended: the figure it is tuned by (None where it was not measured), or why there is none."""

    figure: float | None = None
    error: str | None = None


Outcomes = Mapping[str, Outcome]
"""Stage id -> how it ended; what is not in it has not ended."""

Resolve = Callable[..., ResolvedConfig]
"""(objective, candidate, parent's id or None, seed, steps, measured) -> the settings of the run."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the plan: the training that fills it, None while that is not decided, or while `is_blocked`, which it stays."""

    key: str
    training: Training | None
    steps: int
    is_blocked: bool = False


FAILED = -1
"""Stands for the candidate of a stage none of whose trials ended well."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All trainings of `config`. `steps` has those of each stage of each pipeline; `origin` is what the base model and data hash to.

    What was worked out once is kept in `made`: the plan is asked again after each training.
    """

    config: CompareConfig
    steps: Mapping[str, tuple[int, ...]]
    origin: Mapping[str, Any]
    resolve: Resolve
    made: dict[Any, Any] = field(default_factory=dict)

    def slots(self, outcomes: Outcomes) -> Iterator[Slot]:
        """Every place of the plan once, in the order in which they are best filled."""
        seen = set[str]()
        for pipeline in self.config.pipelines:
            for slot in (*self._trial_slots(pipeline, outcomes), *self._final_slots(pipeline, outcomes)):
                if slot.key not in seen:
                    seen.add(slot.key)
                    yield slot

    def ready(self, outcomes: Outcomes) -> list[Training]:
        """What could run now and has not ended."""
        found = {slot.training.id: slot.training for slot in self.slots(outcomes) if slot.training is not None}
        return [training for name, training in found.items() if name not in outcomes and self._has_ended(training.parent, outcomes)]

    def trainings(self, outcomes: Outcomes) -> dict[str, Training]:
        """Every training that is decided, by its id."""
        return {slot.training.id: slot.training for slot in self.slots(outcomes) if slot.training is not None}

    def trials(self, pipeline: Pipeline, stage: int, outcomes: Outcomes) -> list[Training]:
        """The trials of a stage; none without tuning, or before the stage before it is tuned."""
        if not self.config.is_tuned:
            return []
        parent = None
        if stage:
            index = self.choice(pipeline, stage - 1, outcomes)
            if index in (None, FAILED):
                return []
            parent = self.trials(pipeline, stage - 1, outcomes)[index].id
        return [
            self._training(pipeline, stage, number, parent, seed=self.config.tuning_seed, measured="validation", trial=number)
            for number in range(len(pipeline.stages[stage].candidates))
        ]

    def choice(self, pipeline: Pipeline, stage: int, outcomes: Outcomes) -> int | None:
        """The candidate of a stage with the best figure, the first of equals; None while trials are open, FAILED where none ended well."""
        if not self.config.is_tuned:
            return 0
        trials = self.trials(pipeline, stage, outcomes)
        if not trials:
            return FAILED if stage and self.choice(pipeline, stage - 1, outcomes) == FAILED else None
        if any(trial.id not in outcomes for trial in trials):
            return None
        sign = 1 if figure(self.config.tune_by).better == "higher" else -1
        scores = [outcomes[trial.id].figure for trial in trials]
        ended = [(-sign * score, index) for index, score in enumerate(scores) if score is not None]
        return min(ended)[1] if ended else FAILED

    def finals(self, pipeline: Pipeline, seed: int, outcomes: Outcomes) -> list[Training]:
        """The trainings of a pipeline with one seed, as far as they are decided: the last one is measured on held-out pairs."""
        found: list[Training] = []
        for stage in range(len(pipeline.stages)):
            index = self.choice(pipeline, stage, outcomes)
            if index is None or index == FAILED:
                break
            measured: Measured = "held-out" if self._ends_a_pipeline(pipeline, stage) else ""
            parent = found[-1].id if found else None
            found.append(self._training(pipeline, stage, index, parent, seed=seed, measured=measured))
        return found

    def needed(self, outcomes: Outcomes) -> set[str]:
        """Ids of the trainings whose model another one starts from that has not ended, or may start from: it is not chosen yet."""
        found = set[str]()
        for pipeline in self.config.pipelines:
            for stage in range(len(pipeline.stages) - 1):
                found |= self._needed_trials(pipeline, stage, outcomes)
                for seed in self.config.seeds:
                    finals = self.finals(pipeline, seed, outcomes)
                    if len(finals) > stage + 1:
                        found |= {finals[stage].id} if finals[stage + 1].id not in outcomes else set()
                    elif len(finals) == stage + 1 and self.choice(pipeline, stage + 1, outcomes) is None:
                        found.add(finals[stage].id)
        return found

    def _needed_trials(self, pipeline: Pipeline, stage: int, outcomes: Outcomes) -> set[str]:
        trials, choice = self.trials(pipeline, stage, outcomes), self.choice(pipeline, stage, outcomes)
        if choice is None:
            return {trial.id for trial in trials}
        is_open = any(trial.id not in outcomes for trial in self.trials(pipeline, stage + 1, outcomes))
        return {trials[choice].id} if trials and choice != FAILED and is_open else set()

    def sharing(self, pipeline: Pipeline, stage: int) -> list[str]:
        """The other pipelines that this stage's trials and trainings are those of as well."""
        key = self._prefix(pipeline, stage)
        others = [other for other in self.config.pipelines if other.name != pipeline.name and len(other.stages) > stage]
        return [other.name for other in others if self._prefix(other, stage) == key]

    def _trial_slots(self, pipeline: Pipeline, outcomes: Outcomes) -> Iterator[Slot]:
        for stage, what in enumerate(pipeline.stages):
            if not self.config.is_tuned:
                return
            trials = self.trials(pipeline, stage, outcomes)
            is_blocked = stage > 0 and self.choice(pipeline, stage - 1, outcomes) == FAILED
            for number in range(len(what.candidates)):
                key = f"trial {self._prefix(pipeline, stage)} {number}"
                yield Slot(key, trials[number] if trials else None, self.steps[pipeline.name][stage], is_blocked)

    def _final_slots(self, pipeline: Pipeline, outcomes: Outcomes) -> Iterator[Slot]:
        for seed in self.config.seeds:
            finals = self.finals(pipeline, seed, outcomes)
            is_blocked = False
            for stage in range(len(pipeline.stages)):
                is_blocked |= self.choice(pipeline, stage, outcomes) == FAILED
                training = finals[stage] if stage < len(finals) and not is_blocked else None
                yield Slot(f"final {self._prefix(pipeline, stage)} {seed}", training, self.steps[pipeline.name][stage], is_blocked)
                is_blocked |= training is not None and training.id in outcomes and outcomes[training.id].error is not None

    def _prefix(self, pipeline: Pipeline, stage: int) -> str:
        """What the stages up to `stage` are, whatever is chosen in them."""
        key = (pipeline.name, stage)
        if key not in self.made:
            stages = zip(pipeline.stages[: stage + 1], self.steps[pipeline.name], strict=False)
            named = [[what.objective, steps, [_values(candidate) for candidate in what.candidates]] for what, steps in stages]
            self.made[key] = hashlib.sha256(canonical(named)).hexdigest()
        return str(self.made[key])

    def _ends_a_pipeline(self, pipeline: Pipeline, stage: int) -> bool:
        key = self._prefix(pipeline, stage)
        return any(len(other.stages) == stage + 1 and self._prefix(other, stage) == key for other in self.config.pipelines)

    def _has_ended(self, parent: str | None, outcomes: Outcomes) -> bool:
        return parent is None or (parent in outcomes and outcomes[parent].error is None)

    def _training(
        self,
        pipeline: Pipeline,
        stage: int,
        index: int,
        parent: str | None,
        *,
        seed: int,
        measured: Measured,
        trial: int | None = None,
    ) -> Training:
        key = (pipeline.name, stage, index, parent, seed, measured)
        if key not in self.made:
            what, steps = pipeline.stages[stage], self.steps[pipeline.name][stage]
            candidate = what.candidates[index]
            resolved = self.resolve(what.objective, candidate, parent, seed=seed, steps=steps, measured=measured)
            facts = {**self.origin, "from": parent or "base", "settings": followed_from(resolved)}
            facts |= {"objective": what.objective, "seed": seed, "steps": steps, "measured": measured}
            fingerprint = hashlib.sha256(canonical(facts)).hexdigest()
            name = f"{what.objective}-{fingerprint[:12]}"
            self.made[key] = Training(name, fingerprint, parent, what.objective, candidate, resolved, steps, seed, measured, trial)
        training: Training = self.made[key]
        return training


def _values(candidate: Candidate) -> list[list[Any]]:
    return [[setting.name, setting.value] for setting in candidate]

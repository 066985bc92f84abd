"""compare.json: what was asked and what came of it so far enter, the object that the page is made from leaves. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orpo.comparison.config import CompareConfig
from orpo.comparison.costs import StageResults, costs, curves
from orpo.comparison.figures import Figure, figures_of
from orpo.comparison.pipelines import Pipeline
from orpo.comparison.scores import Measured, against, scores
from orpo.comparison.settings import shown_settings
from orpo.comparison.setup import Setup
from orpo.comparison.stages import FAILED, Outcome, Plan

FORMAT = 1
NUM_SAMPLES = 6
SPLIT = "the budget of a pipeline is divided evenly among its stages"


@dataclass(frozen=True, slots=True)
class Progress:
    """What came of a comparison so far: results and outcomes by stage id, and the untrained model's own result."""

    results: Mapping[str, Mapping[str, Any]]
    outcomes: Mapping[str, Outcome]
    base: Mapping[str, Any] | None

    def stage_results(self, plan: Plan, pipeline: Pipeline) -> StageResults:
        """Of each stage of `pipeline` the results of the seeds that came to an end with it."""
        finals = [plan.finals(pipeline, seed, self.outcomes) for seed in plan.config.seeds]
        ended = [[run[number].id for run in finals if len(run) > number] for number in range(len(pipeline.stages))]
        return [
            (stage.objective, [self.results[name] for name in names if name in self.results])
            for stage, names in zip(pipeline.stages, ended, strict=True)
        ]

    def measured(self, plan: Plan, pipeline: Pipeline) -> dict[int, Measured]:
        """Seed -> what was measured of the last stage's model, for the seeds that came to an end."""
        finals = {seed: plan.finals(pipeline, seed, self.outcomes) for seed in plan.config.seeds}
        last = {seed: run[-1].id for seed, run in finals.items() if len(run) == len(pipeline.stages)}
        return {seed: self.results[name]["measured"] for seed, name in last.items() if name in self.results}

    @property
    def base_measured(self) -> Measured | None:
        """What was measured of the untrained model."""
        return self.base["measured"] if self.base else None


def document(config: CompareConfig, setup: Setup, plan: Plan, progress: Progress, *, about: Mapping[str, Any]) -> dict[str, Any]:
    """The object of compare.json; `about` has what is said of the comparison as a whole: status, name, command, times, environment."""
    base = progress.base_measured
    figures = [figure for figure in figures_of(is_world=config.is_world) if base is None or _is_measured(figure, base)]
    return {
        "format": FORMAT,
        **about,
        "equal": _equal(config, setup, progress.base),
        "tuned_by": _tuned_by(config, setup),
        "metrics": [figure.as_dict() for figure in figures],
        "base": {"scores": scores(figures, [base], base=base) if base else {}},
        "pipelines": [_pipeline(figures, plan, progress, pipeline) for pipeline in config.pipelines],
        "failures": _failures(plan, progress),
    }


def _is_measured(figure: Figure, base: Measured) -> bool:
    return figure.id in base["items"] or (figure.id == "win_rate" and "oracle/score" in base["items"])


def _equal(config: CompareConfig, setup: Setup, base: Mapping[str, Any] | None) -> dict[str, Any]:
    settings = {setting.name: setting.value for setting in config.settings}
    train, validation, held_out = setup.num_pairs
    return {
        "model": config.model,
        "parameters": base["parameters"] if base else None,
        "train_pairs": train,
        "validation_pairs": validation,
        "held_out_pairs": held_out,
        "data_fingerprint": setup.data_fingerprint,
        "budget": {"kind": config.budget.kind, "amount": config.budget.amount},
        "split": SPLIT,
        "seeds": list(config.seeds),
        "trials_per_stage": config.trials_per_stage,
        "pairs_per_step": settings.get("pairs_per_step", 8),
        "dtype": settings.get("dtype", "auto"),
        "settings": settings,
        "jobs": setup.jobs,
        "threads_per_job": setup.threads,
    }


def _tuned_by(config: CompareConfig, setup: Setup) -> dict[str, Any]:
    on = f"{setup.num_pairs[1]:,} pairs that are neither trained on nor held out" if config.is_tuned else "nothing was tuned"
    return {"metric": config.tune_by, "seed": config.tuning_seed, "on": on}


def _pipeline(figures: Sequence[Figure], plan: Plan, progress: Progress, pipeline: Pipeline) -> dict[str, Any]:
    """The entry of one pipeline; the first of all is the one that the others are compared with."""
    baseline, base = plan.config.pipelines[0], progress.base_measured
    measured, stages = progress.measured(plan, pipeline), progress.stage_results(plan, pipeline)
    trials = [trial.id for number in range(len(pipeline.stages)) for trial in plan.trials(pipeline, number, progress.outcomes)]
    found = {
        "name": pipeline.name,
        "baseline": pipeline is baseline,
        "stages": _stages(plan, progress, pipeline),
        "trials": _trials(plan, progress, pipeline),
        "scores": scores(figures, list(measured.values()), base=base),
    }
    if pipeline is not baseline:
        theirs = progress.measured(plan, baseline)
        common = [seed for seed in measured if seed in theirs]
        found["against"] = against(figures, [measured[seed] for seed in common], [theirs[seed] for seed in common], base=base)
    return found | {
        "cost": costs(stages, [progress.results[name] for name in trials if name in progress.results]),
        "curves": curves(stages),
        "samples": _samples(progress, next(iter(measured.values()), None)),
    }


def _stages(plan: Plan, progress: Progress, pipeline: Pipeline) -> list[dict[str, Any]]:
    stages = []
    for number, (stage, steps) in enumerate(zip(pipeline.stages, plan.steps[pipeline.name], strict=True)):
        choice = plan.choice(pipeline, number, progress.outcomes)
        settings = {} if choice is None or choice == FAILED else shown_settings(stage.candidates[choice])
        stages.append({"objective": stage.objective, "settings": settings, "steps": steps})
    return stages


def _trials(plan: Plan, progress: Progress, pipeline: Pipeline) -> list[dict[str, Any]]:
    found = []
    for number in range(len(pipeline.stages)):
        choice = plan.choice(pipeline, number, progress.outcomes)
        for index, trial in enumerate(plan.trials(pipeline, number, progress.outcomes)):
            outcome = progress.outcomes.get(trial.id, Outcome())
            found.append(
                {
                    "stage": number,
                    "settings": shown_settings(trial.candidate),
                    "metric": outcome.figure,
                    "chosen": index == choice,
                    "error": outcome.error,
                    "shared_with": plan.sharing(pipeline, number),
                }
            )
    return found


def _samples(progress: Progress, measured: Measured | None) -> list[dict[str, Any]]:
    """A few replies of the first seed that came to an end, to the same prompts for every pipeline."""
    if measured is None or progress.base is None:
        return []
    prompts, before, replies = progress.base["prompts"], progress.base["measured"]["replies"], measured["replies"]
    num = min(NUM_SAMPLES, len(prompts))
    return [
        {
            "prompt": prompts[index],
            "base": before[index],
            "reply": replies[index],
            "verdict": _verdict(measured["items"], index),
        }
        for index in (number * len(prompts) // num for number in range(num))
    ]


def _verdict(items: Mapping[str, Sequence[float]], index: int) -> dict[str, float] | None:
    """What the oracle says of one reply; None where there is no oracle."""
    return {name: items[f"oracle/{name}"][index] for name in ("score", "correct", "manner")} if "oracle/score" in items else None


def _failures(plan: Plan, progress: Progress) -> list[dict[str, Any]]:
    """Every training that failed, for each pipeline that it is one of."""
    found = []
    for pipeline in plan.config.pipelines:
        finals = [plan.finals(pipeline, seed, progress.outcomes) for seed in plan.config.seeds]
        for number in range(len(pipeline.stages)):
            for run in (*plan.trials(pipeline, number, progress.outcomes), *(run[number] for run in finals if len(run) > number)):
                error = progress.outcomes.get(run.id, Outcome()).error
                if error is not None:
                    found.append({"pipeline": pipeline.name, "stage": number, "seed": run.seed, "error": error})
    return found

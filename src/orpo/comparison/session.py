"""One session of a comparison: what earlier ones came to is read, stages run as they become ready, and compare.json says how it stands."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from orpo.comparison.config import CompareConfig
from orpo.comparison.document import Progress, document
from orpo.comparison.figures import figure
from orpo.comparison.grids import Candidate
from orpo.comparison.kept import Results, drop_models, outcome_of, recalled, stage_folder
from orpo.comparison.processes import Processes
from orpo.comparison.settings import base_model, followed_from, shown_settings, stage_settings
from orpo.comparison.setup import Setup, objectives_of, run_settings
from orpo.comparison.stages import Measured, Outcome, Plan, Training
from orpo.comparison.view import CompareView, stage_line
from orpo.comparison.worker import MODEL, Work, read_failure, read_result
from orpo.errors import InterruptedRun, OrpoError, StorageError
from orpo.pipeline.outcome import now
from orpo.report.comparison import write_comparison
from orpo.runs.atomic import write_json_atomic
from orpo.runs.jsontext import canonical, read_strictly
from orpo.runs.names import COMPARISON
from orpo.training.config import ResolvedConfig
from orpo.training.environment import environment
from orpo.training.guards import StopSignals

BASE = "base"
GO_ON = "the same command again goes on from here"


class Session:
    """Runs what of a comparison is not there yet, in `folder`, which the caller holds."""

    def __init__(self, config: CompareConfig, setup: Setup, folder: Path, console: Console) -> None:
        self.config, self.setup, self.folder, self.console = config, setup, folder, console
        self.plan = Plan(config, setup.steps, setup.origin, self._resolved)
        self.results: Results = {}
        self.outcomes: dict[str, Outcome] = {}
        self.base: dict[str, Any] | None = None
        self.stop: InterruptedRun | StorageError | None = None
        self.started, self.began = now(), time.monotonic()
        path = folder / COMPARISON
        self.earlier: Mapping[str, Any] = read_strictly(path.read_text(encoding="ascii")) if path.exists() else {}

    def run(self) -> None:
        """Everything that can run has ended. Raises InterruptedRun after a signal and StorageError for a full disk: what ran has saved."""
        self.results, self.outcomes = recalled(self.plan, self.folder)
        self.base = read_result(self.folder / BASE, self._base_work().fingerprint)
        drop_models(self.plan, self.folder, self.outcomes)
        with CompareView(self.console, self.setup.jobs) as view, Processes(self.setup.jobs) as processes, self._signals(processes, view):
            self._announce(view)
            while True:
                for work in self._ready(processes) if self.stop is None else ():
                    if processes.has_room:
                        processes.start(work)
                if not processes.running:
                    break
                view.running(list(processes.running), **self._counts())
                for name, code in processes.ended(timeout=0.5).items():
                    self._ended(name, code, processes, view)
        if self.stop is not None:
            self.write("running")
            raise self.stop

    def write(self, status: str) -> Path:
        """The page; compare.json says how the comparison stands."""
        write_json_atomic(self.folder / COMPARISON, self.found(status))
        return write_comparison(self.folder)

    def found(self, status: str) -> dict[str, Any]:
        """The object of compare.json."""
        facts = environment()
        about = {
            "status": status,
            "name": Path(self.config.file).stem,
            "command": facts["command"],
            "started": self.earlier.get("started", self.started),
            "finished": None if status == "running" else now(),
            "seconds": self.earlier.get("seconds", 0.0) + time.monotonic() - self.began,
            "environment": _environment(facts),
        }
        return document(self.config, self.setup, self.plan, Progress(self.results, self.outcomes, self.base), about=about)

    @property
    def status(self) -> str:
        """'done', or 'failed' where a pipeline came to no end with any seed."""
        ends = [[self.plan.finals(pipeline, seed, self.outcomes) for seed in self.config.seeds] for pipeline in self.config.pipelines]
        has_ended = [
            any(len(trainings) == len(pipeline.stages) and trainings[-1].id in self.results for trainings in of_pipeline)
            for pipeline, of_pipeline in zip(self.config.pipelines, ends, strict=True)
        ]
        return "done" if all(has_ended) and self.base is not None else "failed"

    def error(self) -> OrpoError | None:
        """The error of a comparison in which a pipeline came to no end with any seed."""
        if self.status == "done":
            return None
        errors = sorted({outcome.error for outcome in self.outcomes.values() if outcome.error})
        return OrpoError(
            f"not every pipeline came to an end: {'; '.join(errors)}",
            where=str(self.folder),
            doing="comparing",
            fix="read stages/*/log.txt there; the same command tries again what failed otherwise than by numbers that are not finite",
        )

    def _announce(self, view: CompareView) -> None:
        counts, setup = self._counts(), self.setup
        train, validation, held_out = setup.num_pairs
        view.say(f"pairs        {train:,} to train on, {validation:,} to tune by, {held_out:,} held out")
        shown = ", ".join(f"{name} ({' + '.join(map(str, steps))} steps)" for name, steps in setup.steps.items())
        view.say(f"pipelines    {shown}; {self.config.budget} each")
        tuned = f"{self.config.trials_per_stage} trials a stage by {self.config.tune_by}" if self.config.is_tuned else "nothing is tuned"
        view.say(f"plan         {counts['total']} stages, {len(self.config.seeds)} seeds, {tuned}; {setup.jobs} at a time")
        view.say(f"writes       {self.folder}/")
        if counts["done"]:
            view.say(f"done before  {counts['done']} stages")

    def _ready(self, processes: Processes) -> Iterator[Work]:
        """What could start now, best first."""
        if self.base is None and BASE not in processes.running and BASE not in self.outcomes:
            yield self._base_work()
        for training in self.plan.ready(self.outcomes):
            if training.id not in processes.running:
                yield self._work(training)

    def _work(self, training: Training) -> Work:
        pairs = {"validation": self.setup.files.validation, "held-out": self.setup.files.held_out, "": ()}[training.measured]
        is_kept = self.config.keep_models and training.measured == "held-out"
        return Work(
            name=training.id,
            fingerprint=training.fingerprint,
            folder=str(stage_folder(self.folder, training.id)),
            resolved=training.resolved,
            data=pairs,
            world=self.config.is_world,
            only=self.config.tune_by if training.trial is not None else "",
            threads=self.setup.threads,
            needs_model=is_kept or training.id in self.plan.needed(self.outcomes),
        )

    def _base_work(self) -> Work:
        steps = max(num for of_pipeline in self.setup.steps.values() for num in of_pipeline)
        resolved = run_settings(self.config, self.setup.files, objectives_of(self.config)[0], steps=steps)
        facts = {**self.setup.origin, "settings": followed_from(resolved)}
        return Work(
            name=BASE,
            fingerprint=hashlib.sha256(canonical(facts)).hexdigest(),
            folder=str(self.folder / BASE),
            resolved=resolved,
            data=self.setup.files.held_out,
            world=self.config.is_world,
            is_base=True,
            threads=self.setup.threads,
        )

    def _resolved(
        self, objective: str, candidate: Candidate, parent: str | None, *, seed: int, steps: int, measured: Measured
    ) -> ResolvedConfig:
        model = str(stage_folder(self.folder, parent) / MODEL) if parent else base_model(self.config)
        return stage_settings(
            self.config,
            self.setup.files,
            objective=objective,
            candidate=candidate,
            model=model,
            seed=seed,
            steps=steps,
            is_measured=measured != "validation",
        )

    def _ended(self, name: str, code: int, processes: Processes, view: CompareView) -> None:
        """A process has ended: its result, or why there is none, is taken down."""
        work = self._base_work() if name == BASE else self._work(self.plan.trainings(self.outcomes)[name])
        result = read_result(Path(work.folder), work.fingerprint)
        failure = read_failure(Path(work.folder), work.fingerprint)
        if result is None and self.stop is not None:
            return
        if failure is not None and failure["exit_code"] == StorageError.exit_code:
            self.stop = StorageError(
                failure["error"], where=work.folder, doing=f"running the stage {name}", fix="free some space; go on then"
            )
            processes.ask_to_save()
            return
        if name == BASE:
            self.base = result
            if result is None:
                self.outcomes[BASE] = Outcome(error=failure["error"] if failure else f"its process ended with {code}")
            steps, line = 0, stage_line(BASE, {}, role="untrained", figure="", error=self._error(BASE), seconds=_seconds(result))
        else:
            training = self.plan.trainings(self.outcomes)[name]
            self.outcomes[name] = outcome_of(self.plan, self.folder, training, result)
            self.results |= {name: result} if result else {}
            steps, line = training.steps, self._line(training, result)
            drop_models(self.plan, self.folder, self.outcomes)
        counts = self._counts()
        view.ended(line, steps=steps, **counts)
        self.write("running")

    def _error(self, name: str) -> str | None:
        return self.outcomes[name].error if name in self.outcomes else None

    def _line(self, training: Training, result: Mapping[str, Any] | None) -> str:
        outcome = self.outcomes[training.id]
        role = f"trial {training.trial + 1}" if training.trial is not None else f"seed {training.seed}"
        title = figure(self.config.tune_by).title
        shown = f"{title} {outcome.figure:.3f}" if outcome.figure is not None else ""
        settings = shown_settings(training.candidate)
        return stage_line(training.id, settings, role=role, figure=shown, error=outcome.error, seconds=_seconds(result))

    def _counts(self) -> dict[str, int]:
        """Stages that have ended, of how many, and optimizer steps of those that have not."""
        slots = [slot for slot in self.plan.slots(self.outcomes) if not slot.is_blocked]
        open_steps = [slot.steps for slot in slots if slot.training is None or slot.training.id not in self.outcomes]
        is_measured = self.base is not None or BASE in self.outcomes
        return {"done": len(slots) - len(open_steps) + is_measured, "total": len(slots) + 1, "steps_left": sum(open_steps)}

    @contextmanager
    def _signals(self, processes: Processes, view: CompareView) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks every stage to save; the second ends them at once."""

        def receive(number: int, _: FrameType | None) -> None:
            name = signal.Signals(number).name
            if self.stop is not None:
                raise InterruptedRun(
                    f"{name} received: stopped at once", signal_number=number, fix="the same command again goes on from here"
                )
            self.stop = InterruptedRun(
                f"stopped with {self._counts()['done']} of {self._counts()['total']} stages done, in {self.folder}",
                signal_number=number,
                fix=GO_ON,
            )
            view.say(f"{name} received: the stages that run save at the end of their step (once more: stop now)")
            processes.ask_to_save()

        before = {number: signal.signal(number, receive) for number in StopSignals.STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _seconds(result: Mapping[str, Any] | None) -> float:
    return float(result["wall_seconds"]) if result else 0.0


def _environment(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and machine, in the words of compare.json."""
    libraries = facts["libraries"]
    return {
        **{name: libraries[name] for name in ("orpo", "torch", "transformers")},
        "python": facts["python"],
        "platform": facts["platform"],
        "cpu": facts["cpu"],
        "num_cpus": facts["cores"],
        "memory_gib": facts["memory_gib"],
        "gpu": facts["gpus"][0] if facts["gpus"] else None,
    }

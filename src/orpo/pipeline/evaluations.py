"""`orpo eval`: what is to be measured enters; evaluations leave, and those of a run stay in its directory and its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orpo.data.columns import parse_columns
from orpo.evaluation import diversity as likeness
from orpo.evaluation import win_rate
from orpo.evaluation.sampling import Sampling
from orpo.pipeline import evaluate as pairs
from orpo.pipeline.benchmarks import benchmarks
from orpo.pipeline.contest import contest
from orpo.pipeline.diverse import diversity
from orpo.pipeline.eval_config import EvalConfig
from orpo.pipeline.replies import Replying
from orpo.pipeline.run import quiet_libraries
from orpo.report.page import write_report
from orpo.runs import names
from orpo.runs.evaluations import Evaluation, write_evaluation
from orpo.runs.summary import read_summary

Say = Callable[[str], None]
Tick = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, of how much)."""

MAX_NEW_TOKENS = 256
NUM_SAMPLES = 4


def figures_of(config: EvalConfig) -> tuple[str, ...]:
    """The names of what will be measured; of a benchmark, whose figures its task names, only `task/`."""
    found = pairs.figures_of(config.run) if config.data else ()
    found += win_rate.FIGURES if config.vs else ()
    found += likeness.FIGURES if config.diversity else ()
    return (*found, *(f"{task}/" for task in config.tasks))


def evaluations(config: EvalConfig, *, say: Say = lambda _: None, tick: Tick = lambda *_: None) -> list[Evaluation]:
    """All that `config` asks for, measured in turn; each is written to the run's directory as soon as it is there.

    The errors of `orpo.errors`: settings and data that do not fit are told before the weights of that measurement are loaded.
    """
    quiet_libraries()
    done: list[Evaluation] = []
    for measure in _measurements(config, say, tick):
        found = [replace(evaluation, steps=_steps(config.run)) for evaluation in measure()]
        _keep(config.run, found, say)
        done += found
    return done


def flat(done: Sequence[Evaluation]) -> dict[str, Any]:
    """Settings and figures of all evaluations as one object, for people who read JSON and for gates."""
    return {name: value for evaluation in done for name, value in {**evaluation.settings, **evaluation.figures}.items()}


def _measurements(config: EvalConfig, say: Say, tick: Tick) -> list[Callable[[], Sequence[Evaluation]]]:
    """What is asked for, in order: what is soonest done comes first."""
    asked: list[Callable[[], Sequence[Evaluation]]] = []
    if config.data:
        asked.append(lambda: [_pairs(config, say, tick)])
    if config.vs is not None and config.judge is not None:
        vs, judge = config.vs, config.judge
        replying = _replying(config, temperature=1.0 if config.replies == "sampled" else 0.0)
        asked.append(lambda: [contest(config.run, vs, judge, replying, say=say, tick=_named("replies", tick))])
    if config.diversity:
        sampled, num = _replying(config, temperature=1.0), config.num_samples or NUM_SAMPLES
        asked.append(lambda: [diversity(config.run, sampled, num_samples=num, say=say, tick=_named("samples", tick))])
    if config.tasks:
        asked.append(lambda: benchmarks(config, say=say))
    return asked


def _pairs(config: EvalConfig, say: Say, tick: Tick) -> Evaluation:
    """The figures on held-out pairs."""
    seen = [0]

    def count(num: int) -> None:
        seen[0] += 1
        tick("pairs", seen[0], num)

    found = pairs.evaluate(
        config.run, config.data, columns=config.columns, template=config.template, max_length=config.max_length, say=say, tick=count
    )
    of_pairs = pairs.figures_of(config.run)
    settings = {name: value for name, value in found.items() if name not in of_pairs}
    return Evaluation("pairs", settings, {name: found[name] for name in of_pairs})


def _replying(config: EvalConfig, *, temperature: float) -> Replying:
    sampling = Sampling(max_new_tokens=config.max_new_tokens or MAX_NEW_TOKENS, temperature=temperature, seed=config.seed or 0)
    return Replying(config.asked_for, sampling, parse_columns(config.columns) if config.columns else None, config.num_prompts)


def _named(name: str, tick: Tick) -> Callable[[int, int], None]:
    return lambda num, total: tick(name, num, total)


def _keep(run: str, found: Sequence[Evaluation], say: Say) -> None:
    """Writes evaluations of a run directory, and its report anew; those of a plain model are only shown."""
    run_dir = Path(run).expanduser()
    if not (run_dir / names.SUMMARY).is_file():
        return
    for evaluation in found:
        say(f"written      {write_evaluation(run_dir, evaluation)}")
    write_report(run_dir)


def _steps(run: str) -> int | None:
    """How many steps the run has trained; None for what is no run directory."""
    run_dir = Path(run).expanduser()
    return read_summary(run_dir).steps if (run_dir / names.SUMMARY).is_file() else None

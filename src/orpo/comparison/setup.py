"""What is settled before the first stage runs: data checked for every objective, settings of every trial checked, budgets made steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orpo.comparison.budget import steps_for_seconds, steps_for_tokens
from orpo.comparison.config import CompareConfig
from orpo.comparison.pairs import PairFiles, pair_files
from orpo.comparison.pipelines import Pipeline
from orpo.comparison.processes import physical_cores
from orpo.comparison.settings import base_model, stage_settings
from orpo.data.checks import CheckedData, check_data
from orpo.data.columns import parse_columns
from orpo.data.rows import open_data
from orpo.data.world.model import BUILTIN
from orpo.engine.batching import step_pairs
from orpo.errors import ConfigError
from orpo.objectives import catalogue
from orpo.pipeline.fitting import part_lengths
from orpo.pipeline.part import Part
from orpo.pipeline.prepare import max_length_of, objective_options, require_fit
from orpo.pipeline.run_data import checked_data, reads_of, store_and_template
from orpo.training import models
from orpo.training.checkpointing import base_model_facts
from orpo.training.config import ResolvedConfig
from orpo.training.config_fields import reference_way

Pace = tuple[float, float]
"""(seconds of an optimizer step, seconds that go before the first)."""

Rehearse = Callable[[Mapping[str, ResolvedConfig]], Mapping[str, Pace]]
"""Objective -> settings of a short run; gives the pace of each."""

REHEARSED_STEPS = 24

Lengths = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Setup:
    """A comparison that could start. `num_pairs` are those to train on, to tune by, held out; `steps` of each stage of each pipeline."""

    files: PairFiles
    num_pairs: tuple[int, int, int]
    data_fingerprint: str
    weights: str
    steps: Mapping[str, tuple[int, ...]]
    jobs: int
    threads: int

    @property
    def origin(self) -> dict[str, str]:
        """What every training follows from."""
        return {"weights": self.weights, "data": self.data_fingerprint}


def asked(config: CompareConfig) -> dict[str, Any]:
    """What must be the same for a comparison to go on: the file's settings, the bytes of its data, the weights of its model."""
    files = [file.sha256 for path in (*config.data, *config.eval_data) for file in open_data(path).files]
    return {**config.asked, "data_files": files, "base_weights": base_model_facts(base_model(config)).weights_sha256}


def check_rows(config: CompareConfig) -> None:
    """Nothing; raises DataError, with file and line, for rows that cannot be read as pairs. Those of the world can."""
    if config.is_world:
        return
    shared = run_settings(config, PairFiles(config.data, (), ()), "orpo").config
    columns = parse_columns(shared.columns) if shared.columns else None
    for paths in filter(None, (config.data, config.eval_data)):
        check_data(paths, columns=columns, max_bad_rows=shared.max_bad_rows, pair_labelled=shared.pair_labelled).raise_if_errors()


def run_settings(config: CompareConfig, files: PairFiles, objective: str, *, steps: int = 10**6) -> ResolvedConfig:
    """What all stages share, as a run of `objective` from the base model has it, with the first settings it is tuned over."""
    stages = [stage for pipeline in config.pipelines for stage in pipeline.stages if stage.objective == objective]
    candidate = stages[0].candidates[0] if stages else ()
    model = base_model(config)
    return stage_settings(
        config, files, objective=objective, candidate=candidate, model=model, seed=config.seeds[0], steps=steps, is_measured=False
    )


def set_up(config: CompareConfig, folder: Path, *, rehearse: Rehearse) -> Setup:
    """Everything that is settled before a stage runs. Raises ConfigError and DataError. `rehearse` is called for a budget of seconds."""
    files = pair_files(config, folder / "data")
    _check_settings(config, files)
    found = _checked_by_reads(config, files)
    lengths = {name: _distinct_tokens(found[reads_of(name)][0], name) for name in objectives_of(config)}
    steps = _steps(config, files, lengths, rehearse)
    _check_lengths(config, files, steps)
    jobs, threads = jobs_of(config)
    train, validation, held_out = (len(store_and_template(part)[0]) for part in found["pairs"])
    return Setup(
        files=files,
        num_pairs=(train, validation, held_out),
        data_fingerprint=files.fingerprint(),
        weights=base_model_facts(base_model(config)).weights_sha256,
        steps=steps,
        jobs=jobs,
        threads=threads,
    )


def jobs_of(config: CompareConfig) -> tuple[int, int]:
    """Stages at a time, and threads of each. Matrices of the built-in model are slower on two threads than on one."""
    cores = physical_cores()
    is_small = config.model == BUILTIN and not torch.cuda.is_available()
    jobs = config.jobs or (cores if is_small else 1)
    return jobs, max(1, cores // jobs)


def objectives_of(config: CompareConfig) -> list[str]:
    """The objectives of all pipelines, each once."""
    return list(dict.fromkeys(stage.objective for pipeline in config.pipelines for stage in pipeline.stages))


def _check_settings(config: CompareConfig, files: PairFiles) -> None:
    """Nothing; raises ConfigError, with its line, for settings of any trial that `orpo train` refuses, whatever the length of the run."""
    for pipeline in config.pipelines:
        for stage in pipeline.stages:
            for candidate in stage.candidates:
                _resolved(config, files, stage.objective, candidate, steps=10**6)


def _check_lengths(config: CompareConfig, files: PairFiles, steps: Mapping[str, tuple[int, ...]]) -> None:
    """The same for what the length of the run decides: a warm-up must end within it."""
    for pipeline in config.pipelines:
        for stage, num in zip(pipeline.stages, steps[pipeline.name], strict=True):
            for candidate in stage.candidates:
                _resolved(config, files, stage.objective, candidate, steps=num)


def _resolved(config: CompareConfig, files: PairFiles, objective: str, candidate: Any, *, steps: int) -> ResolvedConfig:
    for measured in (False, True):
        resolved = stage_settings(
            config,
            files,
            objective=objective,
            candidate=candidate,
            model=base_model(config),
            seed=config.tuning_seed,
            steps=steps,
            is_measured=measured,
        )
    try:
        catalogue.bound(objective, objective_options(resolved.config))
    except ConfigError as error:
        where = next((setting.place for setting in candidate if setting.name in error.problem), config.file)
        raise ConfigError(error.problem, where=where, expected=error.expected, fix=error.fix) from None
    return resolved


def _checked_by_reads(config: CompareConfig, files: PairFiles) -> dict[str, tuple[CheckedData, ...]]:
    """What objectives read -> the pairs to train on, to tune by and held out, checked as that. Pairs are always there: all are judged by
    them. Raises DataError, and ConfigError where these data are not enough for an objective."""
    tokenizer = models.load_tokenizer(base_model(config))
    shape = models.load_shape(base_model(config))
    found: dict[str, tuple[CheckedData, ...]] = {}
    for objective in ("orpo", *objectives_of(config)):
        reads, settings = reads_of(objective), run_settings(config, files, objective)
        length = max_length_of(settings, shape)
        if reads not in found:
            train = checked_data(settings.config, files.train, tokenizer, max_length=length)
            others = (files.validation, files.held_out)
            parts = [checked_data(settings.config, part, tokenizer, max_length=length, template=train.template) for part in others]
            found[reads] = (train, *parts)
        train_part, _, held_out = (Part(store, range(len(store))) for store, _ in map(store_and_template, found[reads]))
        train_part = replace(train_part, chosen_alone=catalogue.learns_chosen_alone(objective))
        objective_of_data = catalogue.bound(objective, objective_options(settings.config))
        require_fit(settings.config, objective_of_data, train_part, held_out)
    return found


def _distinct_tokens(data: CheckedData, objective: str) -> Lengths:
    """Distinct tokens of each example, as a step of `objective` computes them."""
    store, _ = store_and_template(data)
    alone = catalogue.learns_chosen_alone(objective)
    tokens: Lengths = part_lengths(store.lengths, range(len(store)), chosen_alone=alone).sum(axis=1)
    return tokens


def _steps(config: CompareConfig, files: PairFiles, lengths: Mapping[str, Lengths], rehearse: Rehearse) -> dict[str, tuple[int, ...]]:
    """Pipeline -> steps of each of its stages, which spend its budget in equal shares. Raises ConfigError where a share pays no step."""
    settings = {objective: run_settings(config, files, objective) for objective in objectives_of(config)}
    if config.budget.kind == "steps":
        return {p.name: tuple(int(config.budget.share(len(p.stages), k)) for k in range(len(p.stages))) for p in config.pipelines}
    if config.budget.kind == "tokens":
        found = {name: _steps_by_tokens(config, resolved, lengths[name]) for name, resolved in settings.items()}
    else:
        paces = rehearse({name: _shortened(resolved) for name, resolved in settings.items()})
        found = {name: _steps_by_seconds(*paces[name]) for name in settings}
    return {pipeline.name: _shares(config, pipeline, found) for pipeline in config.pipelines}


def _shortened(resolved: ResolvedConfig) -> ResolvedConfig:
    """The same, for a few steps without a warm-up, which may be longer than they are."""
    return replace(resolved, config=replace(resolved.config, max_steps=REHEARSED_STEPS, warmup_steps=0))


def _shares(config: CompareConfig, pipeline: Pipeline, steps_of: Mapping[str, Callable[[float], int]]) -> tuple[int, ...]:
    share = config.budget.share(len(pipeline.stages), 0)
    steps = tuple(steps_of[stage.objective](share) for stage in pipeline.stages)
    for stage, num in zip(pipeline.stages, steps, strict=True):
        if num < 1:
            problem = f"the budget of {config.budget} pays no step of {stage.objective} in {pipeline.name}"
            raise ConfigError(problem, where=config.file, expected=f"more than {share:,.6g} {config.budget.kind} a stage", fix="raise it")
    return steps


def _steps_by_tokens(config: CompareConfig, resolved: ResolvedConfig, lengths: Lengths) -> Callable[[float], int]:
    """A function of a share of the budget: the steps whose tokens, by policy and by reference, are within it. The order of the data, and
    so the tokens of a step, differs from seed to seed: the mean over the seeds counts."""
    size, objective = resolved.config.pairs_per_step, resolved.config.objective
    passes, once = 1 + catalogue.needs_baseline(objective), 0
    if catalogue.needs_reference(objective):
        if reference_way(resolved.config) == "precomputed":
            passes, once = passes + catalogue.needs_baseline(objective), int(lengths.sum())
        else:
            passes *= 2

    def steps(share: float) -> int:
        most = int(share / (passes * int(lengths.min()))) + 1  # no step has fewer tokens than one pair
        return steps_for_tokens([passes * _step_tokens(lengths, size, seed, most) for seed in config.seeds], once, share)

    return steps


def _step_tokens(lengths: Lengths, size: int, seed: int, num: int) -> Lengths:
    """Tokens of each of the first `num` steps."""
    return np.array([lengths[step_pairs(len(lengths), size, seed=seed, step=step)].sum() for step in range(num)], dtype=np.int64)


def _steps_by_seconds(seconds_per_step: float, once: float) -> Callable[[float], int]:
    return lambda share: steps_for_seconds(seconds_per_step, once, share)

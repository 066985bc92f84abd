"""From a stage of a comparison to the settings of one run of `orpo train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import ceil
from typing import Any

from orpo.comparison.config import CompareConfig
from orpo.comparison.grids import Candidate
from orpo.comparison.pairs import PairFiles
from orpo.data.world import builtin_model_path
from orpo.data.world.model import BUILTIN
from orpo.objectives import catalogue
from orpo.training.checkpointing import FREE_FIELDS
from orpo.training.config import ResolvedConfig, resolve_written
from orpo.training.config_file import Setting

NUM_EVALUATIONS = 8
"""Held-out points of a stage's curves, beside the one before its first step."""

NUM_SAVES = 4
"""Checkpoints on the way of a stage, of which the newest is kept: what a killed comparison loses is a part of a stage."""

OF_REFERENCE = ("reference",)
"""Settings that only an objective with a reference model reads."""


def base_model(config: CompareConfig) -> str:
    """The model that every pipeline starts from."""
    return str(builtin_model_path()) if config.model == BUILTIN else config.model


def stage_settings(
    config: CompareConfig,
    files: PairFiles,
    *,
    objective: str,
    candidate: Candidate,
    model: str,
    seed: int,
    steps: int,
    is_measured: bool,
    output_dir: str | None = None,
) -> ResolvedConfig:
    """The settings of one training. Held-out pairs are given, for its curves, only where it `is_measured` on them.

    Raises ConfigError, with the line of the comparison's file, for what `orpo train` refuses.
    """
    every = [setting for setting in config.settings if setting.name not in OF_REFERENCE or catalogue.needs_reference(objective)]
    own = {setting.name for setting in candidate}
    place = f"{config.file} (set by the comparison)"
    named = {setting.name for setting in every} | own
    ours: dict[str, Any] = {
        "model": model,
        "data": list(files.train),
        "objective": objective,
        "seed": seed,
        "max_steps": steps,
        "save_steps": ceil(steps / NUM_SAVES),
        "save_total_limit": 1,
        "num_samples": 0,
        "output_dir": output_dir,
    }
    if is_measured:
        ours |= {"eval_data": list(files.held_out), "eval_steps": ceil(steps / NUM_EVALUATIONS)}
    settings = [Setting(name, value, place) for name, value in ours.items() if name not in named and value is not None]
    if not is_measured:
        every = [setting for setting in every if setting.name != "eval_steps"]
    resolved = resolve_written([*settings, *(setting for setting in every if setting.name not in own), *candidate])
    return replace(resolved, notes=())  # advice on learning rates is for a single run, and each stage would repeat it


def followed_from(resolved: ResolvedConfig) -> Mapping[str, Any]:
    """The settings that decide what a training comes to, options of the objective with their defaults."""
    config = resolved.config
    return {name: value for name, value in asdict(config).items() if name not in (*FREE_FIELDS, "seed", "max_steps")}


def shown_settings(candidate: Candidate) -> dict[str, Any]:
    """The settings of a trial as compare.json has them."""
    return {setting.name: setting.value for setting in candidate}

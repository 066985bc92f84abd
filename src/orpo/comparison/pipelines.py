"""The pipelines of a comparison: 'sft > dpo' and the grids below `tune` enter, stages with the settings to choose from leave. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orpo.comparison.grids import Candidate
from orpo.comparison.yaml_tree import Node
from orpo.errors import ConfigError
from orpo.objectives import catalogue
from orpo.training.config_fields import About
from orpo.training.config_file import Setting
from orpo.training.config_values import Unfit, converted, shown

EXAMPLE = "add for example `pipelines: [orpo, sft > dpo]`"

OURS = ("model", "data", "eval_data", "holdout", "objective", "seed", "max_steps", "num_train_epochs", "output_dir", "fresh")
"""Settings of `orpo train` that a comparison sets by itself, for every stage."""

NOT_HERE = ("resume_anyway", "preset", "num_samples", "report_to", "reference_cache")
"""Settings of `orpo train` that have no place in a comparison."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of a pipeline: its objective, and the settings to choose from; without tuning there is a single one."""

    objective: str
    candidates: tuple[Candidate, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages in order; each goes on from the model of the one before."""

    name: str
    stages: tuple[Stage, ...]


def pipelines_of(node: Node, grids: Mapping[str, tuple[Candidate, ...]], *, is_tuned: bool) -> tuple[Pipeline, ...]:
    items = node.value if isinstance(node.value, tuple) else (node,)
    pipelines = tuple(_pipeline(item, grids) for item in items)
    if not pipelines:
        raise ConfigError("pipelines is empty", where=node.where, fix=EXAMPLE)
    names: dict[str, str] = {}
    for item, pipeline in zip(items, pipelines, strict=True):
        if pipeline.name in names:
            problem = f"two pipelines are called {pipeline.name!r}, here and at {names[pipeline.name]}"
            raise ConfigError(problem, where=item.where, fix="give one another name: {name: ..., stages: [...]}")
        names[pipeline.name] = item.where
    if is_tuned:
        _require_equal_trials(pipelines)
    return pipelines


def _require_equal_trials(pipelines: Iterable[Pipeline]) -> None:
    """Nothing; raises ConfigError naming two stages that are tuned with unequal care."""
    stages = [stage for pipeline in pipelines for stage in pipeline.stages]
    first = stages[0]
    for other in stages[1:]:
        if len(other.candidates) != len(first.candidates):
            raise ConfigError(
                f"{first.objective} has {len(first.candidates)} trials ({first.where}), {other.objective} has {len(other.candidates)}",
                where=other.where,
                expected="as many different settings to try for every stage: otherwise one is tuned with more care than another",
                fix="make the grids below tune equally large",
            )


def _pipeline(node: Node, grids: Mapping[str, tuple[Candidate, ...]]) -> Pipeline:
    if not node.is_section:
        stages = _stages(node, grids)
        return Pipeline(" > ".join(stage.objective for stage in stages), stages)
    for name, below in node.value.items():
        if name not in ("name", "stages"):
            raise unknown(f"a pipeline has no {name!r}", name, ("name", "stages"), below.where)
    if "stages" not in node.value:
        raise ConfigError("this pipeline has no stages", where=node.where, fix="add stages: sft > dpo, or a list of {objective: ...}")
    stages = _stages(node.value["stages"], grids)
    named = node.value.get("name")
    name = value_of("name", About("", "text", ""), named) if named else " > ".join(stage.objective for stage in stages)
    return Pipeline(str(name), stages)


def _stages(node: Node, grids: Mapping[str, tuple[Candidate, ...]]) -> tuple[Stage, ...]:
    """The stages of 'sft > dpo', or of a list of such names and of sections with an objective and settings of their own."""
    if isinstance(node.value, tuple):
        if not node.value:
            raise ConfigError("this pipeline has no stages", where=node.where, expected="at least one")
        return tuple(stage for item in node.value for stage in _stages(item, grids))
    if not node.is_section:
        return tuple(_stage(part.strip(), {}, node.where, grids) for part in str(node.plain).split(">"))
    own = {name: below for name, below in node.value.items() if name != "objective"}
    if "objective" not in node.value:
        raise ConfigError("this stage has no objective", where=node.where, fix="add objective: dpo")
    return (_stage(str(node.value["objective"].plain), own, node.where, grids),)


def _stage(objective: str, own: Mapping[str, Node], where: str, grids: Mapping[str, tuple[Candidate, ...]]) -> Stage:
    """The stage with its candidates: the grid of its objective, its own settings in place of the grid's, equal ones once."""
    require_objective(objective, where)
    for name, node in own.items():
        if name in (*OURS, *NOT_HERE):
            raise ConfigError(f"{name} is no setting of a stage", where=node.where, fix="remove it")
    fixed = {name: Setting(name, node.plain, node.where) for name, node in own.items()}
    merged = [tuple({**{setting.name: setting for setting in candidate}, **fixed}.values()) for candidate in grids.get(objective, ((),))]
    different = {str([(setting.name, setting.value) for setting in candidate]): candidate for candidate in merged}
    return Stage(objective, tuple(different.values()), where)


def require_objective(name: str, where: str) -> None:
    trainable = [objective for objective in catalogue.OBJECTIVES if catalogue.reads(objective) != "scores"]
    if name == "reward":
        raise ConfigError(
            "a reward model replies nothing, so it cannot be compared", where=where, expected=f"one of {', '.join(trainable)}"
        )
    if name not in trainable:
        raise unknown(f"there is no objective {name!r}", name, trainable, where)


def require_section(name: str, node: Node) -> None:
    if not node.is_section:
        raise ConfigError(f"{name} is {shown(node.plain)}", where=node.where, expected="`name: value` pairs below it")


def catalogue_options() -> frozenset[str]:
    """Options of objectives: what one of them means depends on the objective."""
    return frozenset(option.name for name in catalogue.OBJECTIVES for option in catalogue.objective_options(name))


def unknown(problem: str, name: str, known: Iterable[str], where: str, *, more: str = "") -> ConfigError:
    """The error for a name that is none of `known`, with the nearest."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    fix = more or (f"did you mean {near[0]}?" if near else "remove it")
    return ConfigError(problem, where=where, expected=f"one of {', '.join(sorted(names))}", fix=fix)


def value_of(name: str, about: About, node: Node) -> Any:
    try:
        return converted(about, list(node.plain) if isinstance(node.value, tuple) else node.plain)
    except Unfit as unfit:
        raise ConfigError(f"{name} is {shown(node.plain)}", where=node.where, expected=unfit.expected, fix=unfit.fix) from None

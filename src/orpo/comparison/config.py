"""The settings of `orpo compare`: a YAML file enters, one checked CompareConfig leaves, every value with its line. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orpo.comparison.budget import Budget, parsed_budget
from orpo.comparison.figures import TUNABLE
from orpo.comparison.grids import Candidate, grid_of
from orpo.comparison.pipelines import (
    EXAMPLE,
    NOT_HERE,
    OURS,
    Pipeline,
    catalogue_options,
    pipelines_of,
    require_objective,
    require_section,
    unknown,
    value_of,
)
from orpo.comparison.yaml_tree import Node, read_tree
from orpo.data.world.model import BUILTIN
from orpo.errors import ConfigError
from orpo.training.config_fields import About, known_names
from orpo.training.config_file import Setting
from orpo.training.config_values import shown

WORLD = "world"


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """A checked comparison. `data` is () for the built-in world; `settings` are those of every stage, with their places.

    `asked` is the file as it stands, for recognising it again; `jobs` None is auto.
    """

    file: str
    model: str
    data: tuple[str, ...]
    eval_data: tuple[str, ...]
    holdout: int | float
    validation: int | float
    train_pairs: int
    validation_pairs: int
    held_out_pairs: int
    pipelines: tuple[Pipeline, ...]
    budget: Budget
    seeds: tuple[int, ...]
    tune_by: str
    is_tuned: bool
    settings: tuple[Setting, ...]
    jobs: int | None
    keep_models: bool
    asked: Mapping[str, Any]

    @property
    def is_world(self) -> bool:
        """True for the data of the built-in world, which has an oracle."""
        return not self.data

    @property
    def tuning_seed(self) -> int:
        """The smallest seed that is none of `seeds`."""
        return next(seed for seed in range(len(self.seeds) + 1) if seed not in self.seeds)

    @property
    def trials_per_stage(self) -> int:
        """Trials of each stage, 0 without tuning."""
        return len(self.pipelines[0].stages[0].candidates) if self.is_tuned else 0


_ABOUTS: Mapping[str, tuple[About, Any]] = {
    "model": (About("", "text", ""), BUILTIN),
    "eval_data": (About("", "paths", ""), ()),
    "holdout": (About("", "count or share", "", least=0), 0),
    "validation": (About("", "count or share", "", above=0), 0.1),
    "train_pairs": (About("", "int", "", least=2), 400),
    "validation_pairs": (About("", "int", "", least=2), 100),
    "held_out_pairs": (About("", "int", "", least=2), 120),
    "keep_models": (About("", "bool", ""), False),
}
"""Plain keys: what they take, and their default."""

_OF_WORLD = ("train_pairs", "validation_pairs", "held_out_pairs")
_OF_FILES = ("eval_data", "holdout", "validation")
KEYS = (*_ABOUTS, "data", "pipelines", "budget", "seeds", "tune_by", "tune", "settings", "jobs")


def read_config(file: str) -> CompareConfig:
    """The comparison that `file` asks for. Raises ConfigError, with file:line, for what is unknown, out of range or unequal."""
    root = read_tree(file)
    if not root.is_section:
        raise ConfigError("this is no comparison", where=root.where, expected="`name: value` per line, such as `budget: 300 steps`")
    keys: Mapping[str, Node] = root.value
    for name, node in keys.items():
        if name not in KEYS:
            raise unknown(f"there is no setting {name!r} in a comparison", name, KEYS, node.where, more=_place_hint(name))
    for name in ("pipelines", "budget"):
        if name not in keys:
            raise ConfigError(f"{name} is not given", where=file, expected="pipelines and a budget", fix=_EXAMPLES[name])
    data = _data(keys)
    values = {name: value_of(name, about, keys[name]) if name in keys else default for name, (about, default) in _ABOUTS.items()}
    _require_held_out(keys, values, is_world=not data, file=file)
    settings = _settings(keys.get("settings"))
    grids = _grids(keys.get("tune"))
    pipelines = pipelines_of(keys["pipelines"], grids, is_tuned="tune" in keys)
    _require_used(keys.get("tune"), pipelines)
    return CompareConfig(
        file=file,
        data=data,
        pipelines=pipelines,
        budget=_budget(keys["budget"], pipelines),
        seeds=_seeds(keys.get("seeds")),
        tune_by=_tune_by(keys.get("tune_by"), is_world=not data),
        is_tuned="tune" in keys,
        settings=settings,
        jobs=_jobs(keys.get("jobs")),
        asked={name: node.plain for name, node in keys.items() if name not in ("jobs", "keep_models")},
        **values,
    )


_EXAMPLES = {"pipelines": EXAMPLE, "budget": "add for example `budget: 300 steps`"}


def _place_hint(name: str) -> str:
    """Where a setting of `orpo train` belongs."""
    if name in catalogue_options():
        return "put it below tune: OBJECTIVE:, or into a stage of a pipeline"
    return "put it below settings:" if name in known_names() and name not in (*OURS, *NOT_HERE) else ""


def _data(keys: Mapping[str, Node]) -> tuple[str, ...]:
    """The paths to train on; () for the built-in world."""
    if "data" not in keys or keys["data"].plain == WORLD:
        return ()
    paths: tuple[str, ...] = value_of("data", About("", "paths", ""), keys["data"])
    return paths


def _require_held_out(keys: Mapping[str, Node], values: Mapping[str, Any], *, is_world: bool, file: str) -> None:
    """Nothing; raises ConfigError where the pairs to hold out are not said once, or said as for other data."""
    for name in _OF_FILES if is_world else _OF_WORLD:
        if name in keys:
            fix = "give data: FILE, or remove it" if is_world else "files have the pairs that they have; give holdout and validation"
            problem = f"{name} is not read with data: {WORLD}" if is_world else f"{name} belongs to data: {WORLD}"
            raise ConfigError(problem, where=keys[name].where, fix=fix)
    if is_world:
        return
    if bool(values["eval_data"]) == bool(values["holdout"]):
        both = bool(values["eval_data"])
        problem = "eval_data and holdout both say which pairs are held out" if both else "nothing says which pairs are held out"
        where = keys["holdout"].where if both else file
        raise ConfigError(problem, where=where, expected="one of eval_data and holdout", fix="" if both else "add holdout: 0.1")


def _settings(node: Node | None) -> tuple[Setting, ...]:
    """Settings of every stage. Options of objectives are refused: a beta means something else in each of them."""
    if node is None:
        return ()
    require_section("settings", node)
    options = catalogue_options()
    for name, value in node.value.items():
        if name in (*OURS, *NOT_HERE, *options):
            fix = "put it below tune: OBJECTIVE:, or into a stage of a pipeline" if name in options else "remove it"
            raise ConfigError(f"{name} is no setting of every stage", where=value.where, fix=fix)
    return tuple(Setting(name, value.plain, value.where) for name, value in node.value.items())


def _grids(node: Node | None) -> dict[str, tuple[Candidate, ...]]:
    """Objective -> the settings to choose from."""
    if node is None:
        return {}
    require_section("tune", node)
    for objective, below in node.value.items():
        require_objective(objective, below.where)
    return {objective: grid_of(objective, below, refused=(*OURS, *NOT_HERE)) for objective, below in node.value.items()}


def _require_used(node: Node | None, pipelines: Iterable[Pipeline]) -> None:
    """Nothing; raises ConfigError for a grid of an objective that no pipeline has."""
    used = {stage.objective for pipeline in pipelines for stage in pipeline.stages}
    for objective, below in (node.value if node else {}).items():
        if objective not in used:
            raise ConfigError(f"tune has {objective}, which is in no pipeline", where=below.where, fix="remove it")


def _budget(node: Node, pipelines: Iterable[Pipeline]) -> Budget:
    budget = parsed_budget(node.plain, where=node.where)
    longest = max(pipelines, key=lambda pipeline: len(pipeline.stages))
    if budget.kind == "steps" and budget.amount < len(longest.stages):
        problem = f"budget is {budget}, but {longest.name} has {len(longest.stages)} stages"
        raise ConfigError(problem, where=node.where, expected="a step for each stage at least")
    return budget


def _seeds(node: Node | None) -> tuple[int, ...]:
    """The seeds: a count n stands for 1 to n."""
    if node is None:
        return (1, 2, 3)
    about = About("", "int", "", least=0, most=2**32 - 1)
    if not isinstance(node.value, tuple):
        num = value_of("seeds", About("", "int", "", least=1, most=1000), node)
        return tuple(range(1, num + 1))
    seeds = tuple(value_of("seeds", about, item) for item in node.value)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds is {shown(node.plain)}", where=node.where, expected="a count, or a list of different seeds")
    return seeds


def _tune_by(node: Node | None, *, is_world: bool) -> str:
    usable = [name for name, only_world in TUNABLE.items() if is_world or not only_world]
    if node is None:
        return usable[0]
    if node.plain not in usable:
        raise unknown(f"tune_by is {shown(node.plain)}", str(node.plain), usable, node.where)
    return str(node.plain)


def _jobs(node: Node | None) -> int | None:
    if node is None or node.plain == "auto":
        return None
    num: int = value_of("jobs", About("", "int", "", least=1), node)
    return num

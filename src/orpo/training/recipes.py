"""The recipes that are shipped: a name enters, its settings leave, or its text for `orpo init`. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from orpo.training.config_file import Setting, read_settings

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))

ONE_OF_TWO = (("max_steps", "num_train_epochs"), ("eval_data", "holdout"))
"""Settings that say the same thing in two ways: one that is given takes the place of a recipe's other."""


def recipe_settings(name: str) -> dict[str, Setting]:
    """Name -> setting of the recipe, each with its line; `name` is one of RECIPES."""
    file = FOLDER / f"{name}.yaml"
    places = ((setting, setting.place.removeprefix(str(file))) for setting in read_settings(file))
    return {setting.name: replace(setting, place=f"recipe {name}{line}") for setting, line in places}


def recipe_text(name: str) -> str:
    """A file that trains by the recipe, with model and data to fill in; `name` is one of RECIPES."""
    return re.sub(r"(?m)^# (model|data): ", r"\1: ", (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def without_contradictions(
    recipe: Mapping[str, Setting], given: Mapping[str, Setting], unread: Iterable[str]
) -> tuple[dict[str, Setting], list[str]]:
    """What of a recipe stands beside the settings that were given, and the names left out: replaced by another, or in `unread`."""
    replaced = {other for pair in ONE_OF_TWO for name, other in (pair, pair[::-1]) if name in given and given[name].value != -1}
    out = [name for name in recipe if name in {*replaced, *unread} and name not in given]
    return {name: setting for name, setting in recipe.items() if name not in out}, out

"""What is known of another tool: a rule for each of its settings. A value of its file enters, what became of it here leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orpo.errors import ConfigError
from orpo.training.config_aliases import RENAMED, renamed
from orpo.training.config_elsewhere import IGNORED, LATER, REFUSED, changes_nothing
from orpo.training.config_fields import known_names
from orpo.training.config_file import Setting
from orpo.training.config_values import Unfit

Group = Literal["carried", "changed", "unneeded", "unsupported"]
Values = Mapping[str, Any]

ANYWAY = "asks for what happens anyway"


@dataclass(frozen=True, slots=True)
class Became:
    """What became of a setting: settings of ours, under their names, and a sentence where its meaning changed or nothing takes its place.

    `written` names what it was made of, where that is more than the setting itself.
    """

    group: Group
    ours: Values = field(default_factory=dict)
    why: str = ""
    written: str = ""


Rule = Callable[[Any, Values], Became]
"""(value, all values of the file with the tool's defaults beneath) -> Became. Raises Unfit for a value that cannot be."""


class UnfitSetting(Unfit):
    """A value of the setting `name`, which another one's rule reads, cannot be."""

    def __init__(self, name: str, expected: str, fix: str = "") -> None:
        self.name = name
        super().__init__(expected, fix)


TOLD_ELSEWHERE = Became("carried")
"""Of a setting that another one's rule tells of, or that has no value: nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Another tool. `marks` are settings that it alone has, the most telling first; `defaults` what it does unsaid where that differs.

    What `rules` do not name is looked up in the tables that `orpo train` itself reads foreign names by.
    """

    name: str
    key: str
    marks: tuple[str, ...]
    defaults: Callable[[Values], Values]
    rules: Mapping[str, Rule]


def read_as(name: str, convert: Callable[[Any], Any] = lambda value: value, *, why: str = "") -> Rule:
    """The rule of a setting that is `name` here, its value as `convert` has it; with `why` its meaning changed."""
    return lambda value, _: Became("changed" if why else "carried", {name: convert(value)}, why)


def not_needed(why: str) -> Rule:
    """The rule of a setting that changes no result here."""
    return lambda value, _: TOLD_ELSEWHERE if value is None else Became("unneeded", why=why)


def not_supported(why: str, *, at_rest: tuple[Any, ...] = ()) -> Rule:
    """The rule of a setting without counterpart; switched off, or at one of `at_rest`, it asks for what happens anyway."""

    def rule(value: Any, _: Values) -> Became:
        if value is None:
            return TOLD_ELSEWHERE
        is_off = value in at_rest or changes_nothing("", value)
        return Became("unneeded", why=ANYWAY) if is_off else Became("unsupported", why=why)

    return rule


def for_reasons(make: Callable[[str], Rule], table: Mapping[str, tuple[str, ...]]) -> dict[str, Rule]:
    """The rules of a table of reasons, each with the settings it holds for."""
    return {name: make(why) for why, names in table.items() for name in names}


def told_elsewhere(*_: Any) -> Became:
    """The rule of a setting that another one's rule tells of."""
    return TOLD_ELSEWHERE


def all_told_elsewhere(*names: str) -> Mapping[str, Rule]:
    """That rule for each of `names`."""
    return dict.fromkeys(names, told_elsewhere)


def by_name(setting: Setting, tool: str) -> Became:
    """What became of a setting that `tool` has no rule for, by its name alone."""
    name, value = setting.name, setting.value
    if value is None:
        return TOLD_ELSEWHERE
    if name in known_names():
        return Became("carried", {name: value})
    if name in RENAMED:
        return _renamed(setting)
    if name in IGNORED:
        return Became("unneeded", why=IGNORED[name])
    if name in REFUSED or name in LATER:
        is_off = changes_nothing(name, value)
        return Became("unneeded", why=ANYWAY) if is_off else Became("unsupported", why={**REFUSED, **LATER}[name])
    return Became("unsupported", why=f"no setting of {tool} that is known here")


def _renamed(setting: Setting) -> Became:
    try:
        ours = renamed(setting)
    except ConfigError as error:
        return Became("unsupported", why=f"{error.problem}; expected {error.expected}")
    return Became("unneeded", why=ANYWAY) if ours is None else Became("carried", {ours.name: ours.value})

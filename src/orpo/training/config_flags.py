"""The flags of `orpo train`, made from the settings, for a command line to turn into options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orpo.objectives.catalogue import OBJECTIVES
from orpo.training.config_elsewhere import LATER, REFUSED
from orpo.training.config_fields import DEFAULTS, FIELDS, LOSS, About, option_about

_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "count or share": float}


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `type` is of a single value; with `is_list` it may be given several times.

    A command line hands over None for a flag that was not given, and prints `default_text` ('' for none) as its default.
    `off_flag` is that of a truth value, '' for others. A hidden flag exists so that naming it is answered.
    """

    flag: str
    name: str
    type: type
    default: Any
    default_text: str
    help: str
    choices: tuple[str, ...]
    group: str
    off_flag: str = ""
    is_list: bool = False
    is_hidden: bool = False


def flag_table() -> list[Flag]:
    """Every flag: settings in their order with the options of all objectives among them, then the hidden ones."""
    flags = [_flag(name, about, DEFAULTS[name]) for name, about in FIELDS.items()]
    after = max(position for position, flag in enumerate(flags) if flag.group == LOSS) + 1
    return [*flags[:after], *_option_flags(), *flags[after:], *_hidden_flags()]


def _flag(name: str, about: About, default: Any) -> Flag:
    dashed = name.replace("_", "-")
    details = ", ".join(part for part in (about.unit, about.range_text) if part)
    return Flag(
        flag=f"--{dashed}",
        name=name,
        type=_TYPES.get(about.kind, str),
        default=default,
        default_text=_default_text(default),
        help=f"{about.help} ({details})" if details else about.help,
        choices=about.choices,
        group=about.group,
        off_flag=f"--no-{dashed}" if about.kind == "bool" else "",
        is_list=about.kind == "paths",
    )


def _default_text(default: Any) -> str:
    """'' where nothing is set or a switch is off."""
    return "" if default in (None, "", ()) or default is False else f"{default:g}" if isinstance(default, float) else str(default)


def _option_flags() -> list[Flag]:
    """One flag per option of any objective; help and default name the objectives where they differ."""
    having: dict[str, dict[str, tuple[About, Any]]] = {}
    for objective in OBJECTIVES:
        for name, found in option_about(objective).items():
            having.setdefault(name, {})[objective] = found
    return [_option_flag(name, found) for name, found in having.items()]


def _option_flag(name: str, having: dict[str, tuple[About, Any]]) -> Flag:
    about, default = next(iter(having.values()))
    defaults = _by_value({objective: _default_text(value) for objective, (_, value) in having.items()})
    is_one = len(defaults) == 1
    text = _default_text(default) if is_one else ", ".join(f"{value} ({', '.join(of)})" for value, of in defaults.items())
    helps = _by_value({objective: about.help for objective, (about, _) in having.items()})
    named = " ".join(said if len(of) == len(OBJECTIVES) else f"{said} (of {', '.join(of)})" for said, of in helps.items())
    plain = About(named, about.kind, about.group, about.choices)  # the text from the objective's docstring names the range
    flag = _flag(name, plain, default if is_one else None)
    return Flag(flag.flag, name, flag.type, flag.default, text, flag.help, flag.choices, flag.group, flag.off_flag)


def _by_value(of: dict[str, str]) -> dict[str, list[str]]:
    """Value -> the objectives that have it."""
    values: dict[str, list[str]] = {}
    for objective, value in of.items():
        values.setdefault(value, []).append(objective)
    return values


_HIDDEN: dict[str, type] = {"load_in_8bit": bool, "device": str}


def _hidden_flags() -> list[Flag]:
    """Flags of settings that come later or are decided by the run: given, they are answered by name instead of 'no such option'."""
    return [
        Flag(f"--{name.replace('_', '-')}", name, kind, None, "", {**REFUSED, **LATER}[name], (), "Later", is_hidden=True)
        for name, kind in _HIDDEN.items()
    ]

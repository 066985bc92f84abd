"""Settings of `orpo train`: a YAML file and flags enter, one checked TrainConfig leaves, with the origin of every value. No torch.

The settings themselves are in config_fields.py; config_file.py reads YAML, config_aliases.py knows the names of other tools,
config_check.py what contradicts, config_text.py writes YAML, config_flags.py lists the flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo.objectives.catalogue import PRESET_NOTES, PRESETS
from orpo.training.config_aliases import translated
from orpo.training.config_check import LORA_SETTINGS, check_config, foreign_option, place_of, unfit_error
from orpo.training.config_fields import DEFAULTS, FIELDS, About, TrainConfig, option_about
from orpo.training.config_file import Setting, read_settings
from orpo.training.config_text import to_yaml
from orpo.training.config_values import Unfit, converted
from orpo.training.recipes import recipe_settings, without_contradictions

__all__ = ["ResolvedConfig", "TrainConfig", "check_config", "resolve_config", "resolve_settings", "resolve_written", "to_yaml"]


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A checked config; the origin of every setting and every option of its objective; notes for the user.

    An origin is 'default', 'recipe orpo-lora:12', 'preset trl', 'orpo.yaml:12', 'orpo.yaml:9 (as pref_beta)' or 'flag --beta'.
    """

    config: TrainConfig
    origins: Mapping[str, str]
    notes: tuple[str, ...]


def resolve_config(*, file: str | Path | None = None, flags: Mapping[str, object] | None = None) -> ResolvedConfig:
    """The config that `file` and `flags` (names with underscores; None and [] mean not given) ask for.

    A recipe wins over the defaults, a preset over the recipe, the file over both, a flag over all.

    Raises ConfigError for anything unknown, of a wrong type, out of range or in contradiction; nothing is read from the environment.
    """
    return resolve_written(read_settings(file) if file is not None else (), flag_settings(flags or {}))


def resolve_written(in_file: Sequence[Setting], on_command_line: Sequence[Setting] = ()) -> ResolvedConfig:
    """The same of settings that were read already, each with its place and the name that it was given by."""
    from_file, file_notes = translated(in_file)
    from_flags, flag_notes = translated(on_command_line)
    from_file, length_notes = _length_by_flag(from_file, from_flags)
    return resolve_settings({**from_file, **from_flags}, notes=(*file_notes, *flag_notes, *length_notes))


def resolve_settings(given: Mapping[str, Setting], *, notes: tuple[str, ...] = ()) -> ResolvedConfig:
    """The config that `given` (our name -> Setting) asks for: default < recipe < preset < given. `notes` come before its own.

    Raises ConfigError as resolve_config does.
    """
    recipe, recipe_notes = _recipe(given)
    preset, preset_notes = _preset({**recipe, **given})
    config, origins = _built({**recipe, **preset, **given})
    return ResolvedConfig(config, origins, (*notes, *recipe_notes, *preset_notes, *check_config(config, origins=origins)))


def flag_settings(flags: Mapping[str, object]) -> tuple[Setting, ...]:
    """The flags that were given, as settings."""
    return tuple(
        Setting(name.replace("-", "_"), value, f"flag --{name.replace('_', '-')}")
        for name, value in flags.items()
        if value is not None and value != [] and value != ()
    )


def _length_by_flag(from_file: Mapping[str, Setting], from_flags: Mapping[str, Setting]) -> tuple[Mapping[str, Setting], tuple[str, ...]]:
    """`from_file` without its length of the run where a flag sets it in the other way (`--max-steps 20` for a try), and the note."""
    for name, other in (("max_steps", "num_train_epochs"), ("num_train_epochs", "max_steps")):
        if name in from_flags and other in from_file and other not in from_flags and from_flags[name].value != -1:
            note = f"{name} ({from_flags[name].origin}) replaces {other} ({from_file[other].origin})"
            return {key: setting for key, setting in from_file.items() if key != other}, (note,)
    return from_file, ()


def _recipe(given: Mapping[str, Setting]) -> tuple[dict[str, Setting], tuple[str, ...]]:
    """What the recipe sets beside what was given, and a note on what of it is left out: what the settings given replace or do not read."""
    name = _value("recipe", FIELDS["recipe"], given["recipe"]) if "recipe" in given else None
    if name is None:
        return {}, ()
    whole = recipe_settings(name)
    foreign = {option for option in whole if option not in FIELDS and option not in option_about(_objective({**whole, **given}))}
    lora = {*LORA_SETTINGS, "load_in_4bit"} if "use_peft" in given and given["use_peft"].value is False else set()
    recipe, out = without_contradictions(whole, given, {*foreign, *lora})
    return recipe, (f"recipe {name}: {', '.join(out)} left out, as other settings ask for",) if out else ()


def _preset(given: Mapping[str, Setting]) -> tuple[dict[str, Setting], tuple[str, ...]]:
    """What the preset sets, and how far it is the code it is named after. With another objective check_config refuses it."""
    name = _value("preset", FIELDS["preset"], given["preset"]) if "preset" in given else None
    if name is None or _objective(given) != "orpo":
        return {}, ()
    return {key: Setting(key, value, f"preset {name}") for key, value in PRESETS[name].items()}, (f"preset {name}: {PRESET_NOTES[name]}",)


def _objective(given: Mapping[str, Setting]) -> str:
    return str(_value("objective", FIELDS["objective"], given["objective"])) if "objective" in given else str(DEFAULTS["objective"])


def _built(given: Mapping[str, Setting]) -> tuple[TrainConfig, dict[str, str]]:
    """The config and the origins of its values; options of the objective that nobody set have their defaults."""
    objective = _objective(given)
    options = option_about(objective)
    for name, setting in given.items():
        if name not in FIELDS and name not in options:
            raise foreign_option(name, objective, where=place_of(setting.origin))
    abouts = {**FIELDS, **{name: about for name, (about, _) in options.items()}}
    defaults = {**DEFAULTS, **{name: default for name, (_, default) in options.items()}}
    values = {name: _value(name, about, given[name]) if name in given else defaults[name] for name, about in abouts.items()}
    origins = {name: given[name].origin if name in given else "default" for name in abouts}
    config = TrainConfig(**{name: values[name] for name in FIELDS}, objective_options={name: values[name] for name in options})
    return config, origins


def _value(name: str, about: About, setting: Setting) -> Any:
    """The value in the setting's own type; raises ConfigError with its place."""
    try:
        return converted(about, setting.value)
    except Unfit as unfit:
        raise unfit_error(name, setting.value, unfit, origin=setting.origin) from None

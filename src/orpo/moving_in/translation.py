"""The settings of another tool's file enter; ours leave, with what became of each of theirs, told in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orpo.errors import ConfigError
from orpo.moving_in.tool import Became, Group, Tool, UnfitSetting, by_name
from orpo.training.config import ResolvedConfig, resolve_settings
from orpo.training.config_check import ADAM_SETTINGS, LORA_SETTINGS
from orpo.training.config_file import Setting
from orpo.training.config_values import Unfit, shown


@dataclass(frozen=True, slots=True)
class Row:
    """A setting of the other tool and what became of it. `is_given` is False for a default that its file does not write."""

    setting: Setting
    is_given: bool
    became: Became

    @property
    def written(self) -> str:
        """What it is called there."""
        return self.became.written or self.setting.name


@dataclass(frozen=True, slots=True)
class MovedIn:
    """What a file of `tool` comes to: `settings` by our names (their `written` is the other tool's), and every row."""

    tool: Tool
    settings: Mapping[str, Setting]
    rows: tuple[Row, ...]

    def of(self, group: Group) -> list[Row]:
        """The rows of one group, those of the file first."""
        return sorted((row for row in self.rows if row.became.group == group and row.became.why), key=lambda row: not row.is_given)

    def resolved(self, *, notes: tuple[str, ...] = ()) -> ResolvedConfig:
        """The config that the settings ask for. Raises ConfigError for one that cannot be, naming the place in the other tool's file."""
        return resolve_settings(self.settings, notes=notes)


def moved_in(
    tool: Tool,
    found: Sequence[Setting],
    *,
    processes: int = 1,
    known: Mapping[str, Any] | None = None,
    beside: Mapping[str, Setting] | None = None,
) -> MovedIn:
    """What `found`, the settings of a file of `tool`, come to here. `processes` is how many it was launched on.

    `known` are values that rules may read and no file holds, such as steps_per_epoch; `beside` are settings of ours that go before.
    Raises ConfigError for a value that cannot be.
    """
    given = {setting.name: setting for setting in found}
    said = {setting.name: setting.value for setting in found}
    defaults = tool.defaults(said)
    values = {**defaults, **said, **(known or {})}
    unsaid = [Setting(name, value, f"{tool.name}'s default") for name, value in defaults.items() if name not in given]
    rows = tuple(_row(setting, _became(tool, setting, values, given), given) for setting in (*found, *unsaid))
    settings = _settings(rows)
    if processes > 1 and "pairs_per_step" in settings:
        pairs = settings["pairs_per_step"]
        settings["pairs_per_step"] = Setting("pairs_per_step", pairs.value * processes, pairs.place, f"{pairs.written} x {processes}")
    settings |= beside or {}
    rows += tuple(_without_what_is_not_read(settings))
    return MovedIn(tool, settings, rows)


def _row(setting: Setting, became: Became, given: Mapping[str, Setting]) -> Row:
    """The row of a setting; where it is told under names that the file writes, the place is theirs."""
    there = next((given[name] for name in (became.written or setting.name).split(" x ") if name in given), None)
    return Row(there or setting, setting.name in given or there is not None, became)


def _became(tool: Tool, setting: Setting, values: Mapping[str, Any], given: Mapping[str, Setting]) -> Became:
    if setting.name not in tool.rules:
        return by_name(setting, tool.name)
    try:
        return tool.rules[setting.name](setting.value, values)
    except Unfit as unfit:
        wrong = given.get(unfit.name, setting) if isinstance(unfit, UnfitSetting) else setting
        raise ConfigError(
            f"{wrong.name} is {shown(wrong.value)}",
            where=wrong.place,
            doing=f"reading settings of {tool.name}",
            expected=unfit.expected,
            fix=unfit.fix or "correct it there, or remove it",
        ) from None


def _settings(rows: Sequence[Row]) -> dict[str, Setting]:
    """Our name -> Setting. What the file says wins over a default of the tool; two places of the file must agree."""
    settings: dict[str, Setting] = {}
    for row in sorted(rows, key=lambda row: not row.is_given):
        for name, value in row.became.ours.items():
            first = settings.setdefault(name, Setting(name, value, row.setting.place, row.written))
            if row.is_given and first.value != value:
                raise ConfigError(
                    f"{first.written} asks for {name} {shown(first.value)}, {row.written} for {shown(value)}",
                    where=row.setting.place,
                    expected=f"one value (the other stands at {first.place})",
                    fix="remove one of the two there",
                )
    return settings


def _without_what_is_not_read(settings: dict[str, Setting]) -> Iterator[Row]:
    """Takes out of `settings` what the others leave unread, which `orpo train` would refuse; a row for each that the file wrote."""
    value = {name: setting.value for name, setting in settings.items()}
    unread: dict[str, str] = {}
    if value.get("max_steps", -1) > 0:
        unread["num_train_epochs"] = "max_steps sets the length of the run"
    if not value.get("use_peft"):
        unread |= dict.fromkeys(LORA_SETTINGS, "all weights are trained: there are no adapters")
    if not str(value.get("optim", "adamw")).startswith("adamw"):
        unread |= dict.fromkeys(ADAM_SETTINGS, f"{value['optim']} does not read it")
    if value.get("lr_scheduler_type") == "constant":
        unread["warmup_steps"] = "a constant rate has no warm-up"
    if not (value.get("eval_data") or value.get("holdout")):
        unread["eval_steps"] = "no pairs are held out: set holdout or eval_data to watch some"
    for name, why in unread.items():
        setting = settings.pop(name, None)
        if setting is not None and not setting.place.endswith(" default"):
            yield Row(Setting(setting.written, setting.value, setting.place), True, Became("unneeded", why=why))

"""YAML out of settings: config.resolved.yaml with the origin of each value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from orpo.objectives.catalogue import needs_reference
from orpo.training.config_check import ADAM_SETTINGS, LORA_SETTINGS
from orpo.training.config_fields import FIELDS, LOSS, TrainConfig, is_adamw
from orpo.training.config_file import EXPONENT

if TYPE_CHECKING:
    from orpo.training.config import ResolvedConfig

HEADER = "# Every setting of this run and where it came from. `orpo train` reads this file again."


def to_yaml(resolved: ResolvedConfig) -> str:
    """The text of config.resolved.yaml: reading it back gives the same config. What this run does not read stands in comments."""
    lines = [HEADER]
    for group in dict.fromkeys(about.group for about in FIELDS.values()):
        lines += ["", f"# {group}", *_group_lines(resolved, group)]
    return "\n".join(lines) + "\n"


def _group_lines(resolved: ResolvedConfig, group: str) -> Iterator[str]:
    config = resolved.config
    unread = unread_settings(config)
    values = {name: getattr(config, name) for name, about in FIELDS.items() if about.group == group}
    if group == LOSS:
        values |= config.objective_options
    for name, value in values.items():
        origin = _printable(resolved.origins.get(name, "default"))
        if name in unread:
            yield f"# {name}: {yaml_value(value)}  # not read: {unread[name]}"
        elif value in (None, "", ()):
            yield f"# {name}:  # not set"
        else:
            yield f"{name}: {yaml_value(value)}  # {origin}"


def unread_settings(config: TrainConfig) -> dict[str, str]:
    """Settings that this run does not read, with the reason; check_config has seen to it that nobody set them."""
    unread = {}
    if config.max_steps > 0:
        unread["num_train_epochs"] = "max_steps is set"
    if not config.use_peft:
        unread |= dict.fromkeys(LORA_SETTINGS, "use_peft is off")
    if not is_adamw(config.optim):
        unread |= dict.fromkeys(ADAM_SETTINGS, f"optim is {config.optim}")
    if not needs_reference(config.objective):
        unread |= dict.fromkeys(("reference", "reference_cache"), f"{config.objective} reads no reference model")
    return unread


class SettingsDumper(yaml.SafeDumper):
    """SafeDumper that quotes texts which config_file would read as a number, and keeps every text on one line."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """True: values are written out where they stand."""
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    needs_quotes = not text.isprintable() or EXPONENT.fullmatch(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if needs_quotes else None)


SettingsDumper.add_representer(str, _text_node)
SettingsDumper.add_representer(tuple, lambda dumper, value: dumper.represent_list(list(value)))


def yaml_value(value: Any) -> str:
    """`value` on one line, as YAML 1.1 and 1.2 read it alike."""
    text: str = yaml.dump(value, Dumper=SettingsDumper, default_flow_style=True, width=1 << 30)
    return text.removesuffix("...\n").strip()


def _printable(text: str) -> str:
    """A comment must not end early: a path may hold a line break."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

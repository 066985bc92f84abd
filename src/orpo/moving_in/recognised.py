"""Which tool a configuration is of: its settings enter; the tool leaves, and the settings that told."""

from __future__ import annotations

from collections.abc import Sequence

from orpo.errors import ConfigError
from orpo.moving_in.from_axolotl import AXOLOTL
from orpo.moving_in.from_llama_factory import LLAMA_FACTORY
from orpo.moving_in.from_trl import TRL
from orpo.moving_in.tool import Tool
from orpo.training.config_fields import known_names
from orpo.training.config_file import Setting

TOOLS: tuple[Tool, ...] = (TRL, LLAMA_FACTORY, AXOLOTL)
NUM_SHOWN = 6


def recognised(found: Sequence[Setting], *, file: str) -> tuple[Tool, tuple[str, ...]]:
    """The tool with the most marks among the settings of `file`, and those marks. Raises ConfigError where no tool leads."""
    names = [setting.name for setting in found]
    if names and set(names) <= set(known_names()):
        raise ConfigError("this is a configuration of orpo already", where=file, fix=f"orpo train {file}")
    marks = {tool.key: tuple(name for name in tool.marks if name in names) for tool in TOOLS}
    first, second = sorted(TOOLS, key=lambda tool: -len(marks[tool.key]))[:2]
    if not marks[first.key]:
        looked_for = "; ".join(f"of {tool.name} {', '.join(tool.marks[:NUM_SHOWN])}, ..." for tool in TOOLS)
        raise ConfigError(
            "this is the configuration of no tool that is known here",
            where=file,
            expected=f"settings {looked_for}",
            fix=f"name the tool with --from {', '.join(tool.key for tool in TOOLS)}, or begin anew with orpo init",
        )
    if len(marks[first.key]) == len(marks[second.key]):
        raise ConfigError(
            f"this may be of {first.name} ({', '.join(marks[first.key])}) or of {second.name} ({', '.join(marks[second.key])})",
            where=file,
            fix=f"name it: --from {first.key}, or --from {second.key}",
        )
    return first, marks[first.key]


def named(key: str) -> Tool:
    """The tool that --from names. Raises ConfigError for another name."""
    for tool in TOOLS:
        if tool.key == key:
            return tool
    raise ConfigError(
        f"--from names {key!r}", expected=f"one of {', '.join(tool.key for tool in TOOLS)}", fix="leave it out: the file tells"
    )

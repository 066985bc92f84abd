"""An orpo.yaml out of another tool's configuration, with a word on every line, and the list of what did not carry over."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from orpo.moving_in.tool import Group
from orpo.moving_in.translation import MovedIn, Row
from orpo.training.config_fields import FIELDS, LOSS
from orpo.training.config_file import Setting
from orpo.training.config_text import yaml_value
from orpo.training.config_values import shown

GROUPS: tuple[tuple[Group, str], ...] = (
    ("changed", "changed meaning"),
    ("unneeded", "not needed here"),
    ("unsupported", "not supported"),
)


WIDTH = 116
MARKS_SHOWN = 5
TO_SET = "set this: the file names none"
PLACEHOLDERS = (Setting("model", "MODEL", TO_SET), Setting("data", "pairs.jsonl", TO_SET))
"""What stands for settings without which there is no run, where the other tool's file does not hold them."""


def completed(moved: MovedIn) -> MovedIn:
    """The same with a placeholder for the model and the data, where the file names none."""
    missing = {setting.name: setting for setting in PLACEHOLDERS if setting.name not in moved.settings}
    return replace(moved, settings={**missing, **moved.settings})


def recognition(moved: MovedIn, told_by: Sequence[str]) -> str:
    """Which tool it was and what told, in a few words."""
    more = f" and {len(told_by) - MARKS_SHOWN} more" if len(told_by) > MARKS_SHOWN else ""
    return f"a configuration of {moved.tool.name}, told by {', '.join(told_by[:MARKS_SHOWN])}{more}"


def yaml_text(moved: MovedIn, *, file: str, told_by: Sequence[str]) -> str:
    """The text of the orpo.yaml. It resolves to the same settings as `moved`."""
    lines = [*_comment(f"From {_one_line(file)}: {recognition(moved, told_by)}."), "# Look at it first: orpo plan FILE"]
    settings = sorted(moved.settings.values(), key=_position)
    for group, of_group in groupby(settings, key=_group_of):
        lines += ["", f"# {group}", *map(_line, of_group)]
    lines += ["", *(comment for line in not_carried(moved) for comment in _comment(line))]
    return "\n".join(lines) + "\n"


def _comment(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return [f"# {part}" for part in textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)]


def not_carried(moved: MovedIn) -> list[str]:
    """Three groups of lines: what changed its meaning, what is not needed here, what is not supported; each setting with a sentence."""
    lines: list[str] = []
    for group, title in GROUPS:
        rows = moved.of(group)
        lines += [f"{title}:", *(f"  {line}" for line in _told(rows))] if rows else []
    return lines or ["Every setting means the same here."]


def _told(rows: Sequence[Row]) -> Iterator[str]:
    """Rows with one reason share a line."""
    reasons = {row.became.why: index for index, row in reversed(list(enumerate(rows)))}
    for why, same in groupby(sorted(rows, key=lambda row: reasons[row.became.why]), key=lambda row: row.became.why):
        yield f"{', '.join(_told_setting(row) for row in same)}: {_one_line(why)}"


def _told_setting(row: Row) -> str:
    """`max_length 1024 -> max_length 1024`, or the name alone where nothing came of it."""
    ours = ", ".join(f"{name} {_one_line(yaml_value(value))}" for name, value in row.became.ours.items())
    said = row.written if row.is_given or row.became.written else f"{row.written} {_one_line(shown(row.setting.value))}, unsaid"
    return f"{said} -> {ours}" if ours else said


def _group_of(setting: Setting) -> str:
    return FIELDS[setting.name].group if setting.name in FIELDS else LOSS


def _position(setting: Setting) -> tuple[int, int]:
    """Groups in their order, in a group the settings in theirs, an objective's own options behind them."""
    groups = list(dict.fromkeys(about.group for about in FIELDS.values()))
    names = list(FIELDS)
    return groups.index(_group_of(setting)), names.index(setting.name) if setting.name in FIELDS else len(names)


def _line(setting: Setting) -> str:
    return f"{setting.name}: {yaml_value(setting.value)}  # {_one_line(_origin(setting))}"


def _origin(setting: Setting) -> str:
    """Where the value comes from, in a few words."""
    line = setting.place.rpartition(":")[2]
    if setting.place == TO_SET or setting.place.endswith(" default"):
        return setting.place
    where = f"line {line}" if line.isdigit() else "as there"
    return where if setting.written == setting.name else f"{where}: {setting.written}"


def _one_line(text: str) -> str:
    """A comment must not end early: a path may hold a line break."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

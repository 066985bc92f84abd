"""The --columns flag: which column of a file plays which role. A mapping goes in, a view of a row by role comes out."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from orpo.errors import ConfigError

ROLES = (
    "prompt",
    "chosen",
    "rejected",
    "system",
    "tools",
    "messages",
    "conversations",
    "instruction",
    "input",
    "history",
    "question",
    "query",
    "output",
    "chosen_response",
    "rejected_response",
    "rejected_messages",
    "chosen_conversations",
    "rejected_conversations",
    "preferred_output",
    "non_preferred_output",
    "preferred_completion",
    "non_preferred_completion",
    "responses",
    "generations",
    "scores",
    "ratings",
    "rating",
    "ranks",
    "status",
    "completion",
    "label",
    "kto_tag",
)
"""Every column name that some shape reads: what may stand left of '=' in --columns."""

SYNTAX = "--columns role=column,role=column, for example --columns prompt=question,chosen=good,rejected=bad"


def parse_columns(text: str) -> dict[str, str]:
    """The mapping role -> column of a --columns value; ConfigError on bad syntax, an unknown role, a role or a column given twice."""
    columns: dict[str, str] = {}
    for part in text.split(","):
        role, column = _role_and_column(part)
        if role in columns:
            raise ConfigError(f"--columns gives the role '{role}' twice: {columns[role]!r} and {column!r}", expected=SYNTAX)
        if column in columns.values():
            raise ConfigError(f"--columns gives the column {column!r} to two roles", expected=SYNTAX)
        columns[role] = column
    return columns


def _role_and_column(part: str) -> tuple[str, str]:
    role, sign, column = (piece.strip() for piece in part.partition("="))
    if not sign or not role or not column:
        raise ConfigError(f"--columns cannot be read at {part.strip()!r}", expected=SYNTAX)
    if role not in ROLES:
        near = get_close_matches(role, ROLES, n=1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        swapped = f"; the role stands left: {column}={role}" if column in ROLES and not near else ""
        raise ConfigError(f"--columns: '{role}' is not a role{meant}{swapped}", expected="one of " + ", ".join(ROLES))
    return role, column


def by_role(value: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row's values by role. A mapped column is seen under its role alone; the others keep their names, unless a role took the name."""
    if not columns:
        return dict(value)
    taken = set(columns.values())
    view = {name: item for name, item in value.items() if name not in taken and name not in columns}
    view.update({role: value[column] for role, column in columns.items() if column in value})
    return view

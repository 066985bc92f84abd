"""A row seen by role: each method reads one column as one kind of value, or raises the RowProblem that says what stands there instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orpo.core.records import Conversation, Message
from orpo.data.columns import by_role
from orpo.data.shapes import turns
from orpo.data.shapes.kinds import is_message, messages_as_text
from orpo.data.shapes.problems import RowProblem


@dataclass(frozen=True)
class Fields:
    """The values of a row by role, under the --columns mapping (empty: the columns' own names)."""

    value: Mapping[str, Any]
    columns: Mapping[str, str]

    @cached_property
    def by_role(self) -> dict[str, Any]:
        """The row's values by role."""
        return by_role(self.value, self.columns)

    def place(self, role: str) -> str:
        """The column's name as the user knows it."""
        column = self.columns.get(role, role)
        return f"'{column}'" if column == role else f"'{column}' (as {role})"

    def required(self, role: str) -> Any:
        """The value, which must be there and not null."""
        if role not in self.by_role:
            found = ", ".join(map(str, self.value)) or "none"
            fix = f"add it to the row, or name the column that holds it: --columns {role}=NAME"
            raise RowProblem("missing-column", f"column {self.place(role)} is missing; columns found: {found}", fix=fix)
        if self.by_role[role] is None:
            raise RowProblem("null", f"{self.place(role)} is null", fix="fill it in, or remove the row")
        return self.by_role[role]

    def text(self, role: str) -> str:
        """The text of a column."""
        value = self.required(role)
        if isinstance(value, str) and not messages_as_text(value):
            return value
        if isinstance(value, str) or is_message(value) or (isinstance(value, list) and value and is_message(value[0])):
            raise _mixed(f"{self.place(role)} holds messages where the rows before hold plain text")
        raise self._wrong_type(role, value, "text")

    def optional_text(self, role: str) -> str:
        """The text of a column, or '' where it is missing or null."""
        return "" if self.by_role.get(role) is None else self.text(role)

    def has(self, role: str) -> bool:
        """True when the column holds anything: not missing, null, or empty."""
        value = self.by_role.get(role)
        return value is not None and (not isinstance(value, str | list | tuple | Mapping) or bool(value))

    def messages(self, role: str) -> Conversation:
        """The messages of a column: a list, its JSON text, or a single message."""
        value = self._decoded(role)
        if isinstance(value, Mapping):
            return (turns.message(value, self.place(role)),)
        if isinstance(value, list | tuple):
            return turns.conversation(value, self.place(role))
        if isinstance(value, str):
            raise _mixed(f"{self.place(role)} holds plain text where the rows before hold messages")
        raise self._wrong_type(role, value, "a list of messages")

    def answer(self, role: str) -> Conversation:
        """An answer given as text, as one message or as a list of messages."""
        value = self.required(role)
        if isinstance(value, str) and not messages_as_text(value):
            return (Message("assistant", value),)
        return self.messages(role)

    def items(self, role: str) -> list[Any]:
        """The entries of a list."""
        value = self.required(role)
        if isinstance(value, list | tuple):
            return list(value)
        raise self._wrong_type(role, value, "a list")

    def mapping(self, role: str) -> Mapping[str, Any]:
        """The object in a column."""
        value = self.required(role)
        if isinstance(value, Mapping):
            return value
        raise self._wrong_type(role, value, "an object")

    def flag(self, role: str) -> bool:
        """The true or false (1 or 0) of a column; CSV files hold them as text."""
        value = self.required(role)
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
            return bool(value)
        raise self._wrong_type(role, value, "true or false")

    def number(self, role: str) -> float | None:
        """The number of a column, or None where there is none; CSV files hold it as text."""
        value = self.by_role.get(role)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            return float(value)
        except ValueError:
            return None

    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools column."""
        return turns.tools(self.by_role.get("tools"), self.place("tools"))

    def _decoded(self, role: str) -> Any:
        """The value; messages written down as text are read as JSON."""
        value = self.required(role)
        if not isinstance(value, str) or not messages_as_text(value):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            fix = "write the column as JSON (in Python: json.dumps), or save the rows as JSON Lines"
            raise RowProblem(
                "messages-not-json", f"{self.place(role)} looks like messages but is not valid JSON: {error}", fix=fix
            ) from error

    def _wrong_type(self, role: str, value: Any, expected: str) -> RowProblem:
        text = repr(value)
        shown = text if len(text) <= 60 else text[:57] + "..."
        message = f"{self.place(role)} is {type(value).__name__} {shown}, expected {expected}"
        return RowProblem("wrong-type", message, fix=f"write {expected} there, or remove the row")


def _mixed(message: str) -> RowProblem:
    fix = "keep plain rows and chat rows in separate files"
    return RowProblem("mixed-chat-and-plain", message, fix=fix)

"""What kind of value a column holds, as far as shapes differ by it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

from orpo.data.transcripts import looks_like_transcript


class Kind(StrEnum):
    """The kinds of values; the text is what a message shows."""

    TEXT = "text"
    TRANSCRIPT = "transcript"
    MESSAGE = "message"
    MESSAGES = "messages"
    TEXTS = "list of texts"
    NUMBERS = "list of numbers"
    LIST = "list"
    FLAG = "true/false"
    FLAG_TEXT = "true/false as text"
    NUMBER = "number"
    OBJECT = "object"
    EMPTY = "empty"
    OTHER = "other"
    ANY = "anything"


_WIDER = {
    Kind.TRANSCRIPT: {Kind.TEXT},
    Kind.MESSAGES: {Kind.LIST},
    Kind.TEXTS: {Kind.LIST},
    Kind.NUMBERS: {Kind.LIST},
    Kind.FLAG: {Kind.NUMBER},
    Kind.FLAG_TEXT: {Kind.FLAG, Kind.TEXT},
    Kind.MESSAGE: {Kind.OBJECT},
}

_MESSAGES_AS_TEXT = re.compile(r"""\s*\[?\s*\{\s*['"](?:role|from|content|value)['"]\s*:""")


def fits(kind: Kind, need: Kind) -> bool:
    """True when a value of `kind` can be read where `need` is expected."""
    return need is Kind.ANY or kind is need or need in _WIDER.get(kind, ())


def messages_as_text(text: str) -> bool:
    """True when the text looks like messages written down as text, as CSV files hold them."""
    return _MESSAGES_AS_TEXT.match(text) is not None


def is_message(value: Any) -> bool:
    """True when the value has a speaker, in either spelling."""
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def kind_of(value: Any) -> Kind:
    """The kind of one value. Nothing (null, empty text or list) is EMPTY: it says nothing about the column."""
    if value is None or (isinstance(value, str | list | tuple | Mapping) and not value):
        return Kind.EMPTY
    if isinstance(value, str):
        return _kind_of_text(value)
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return Kind.FLAG
    if isinstance(value, int | float):
        return Kind.NUMBER
    if isinstance(value, Mapping):
        return Kind.MESSAGE if is_message(value) else Kind.OBJECT
    return _kind_of_list(value) if isinstance(value, list | tuple) else Kind.OTHER


def _kind_of_text(text: str) -> Kind:
    if messages_as_text(text):
        try:
            return kind_of(json.loads(text))
        except ValueError:
            return Kind.TEXT
    if text.strip().lower() in ("true", "false"):
        return Kind.FLAG_TEXT
    return Kind.TRANSCRIPT if looks_like_transcript(text) else Kind.TEXT


def _kind_of_list(items: Sequence[Any]) -> Kind:
    if all(is_message(item) for item in items):
        return Kind.MESSAGES
    if all(isinstance(item, str) for item in items):
        return Kind.TEXTS
    if all(item is None or (isinstance(item, int | float) and not isinstance(item, bool)) for item in items):
        return Kind.NUMBERS
    return Kind.LIST


def column_kinds(views: Sequence[Mapping[str, Any]], *, always: Collection[str] = ()) -> dict[str, Kind]:
    """The kind of each column that at least half of the rows have, or any row for those in `always`.

    It is the commonest kind among the column's non-empty values.
    """
    counters: dict[str, Counter[Kind]] = {}
    for view in views:
        for name, value in view.items():
            counters.setdefault(name, Counter())[kind_of(value)] += 1
    told = [name for name, counter in counters.items() if name in always or 2 * counter.total() >= len(views)]
    return {name: _commonest(counters[name]) for name in told}


def _commonest(counter: Counter[Kind]) -> Kind:
    told = [(kind, num) for kind, num in counter.most_common() if kind is not Kind.EMPTY]
    return told[0][0] if told else Kind.EMPTY

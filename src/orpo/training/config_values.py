"""One value: what a file or a flag holds enters, what the setting's kind asks for leaves, or an Unfit that says what was expected."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from orpo.training.config_fields import About, Kind


class Unfit(ValueError):
    """A value is not of its setting's kind; `expected` and `fix` go into the message."""

    def __init__(self, expected: str, fix: str = "") -> None:
        self.expected, self.fix = expected, fix
        super().__init__(expected)


def converted(about: About, value: object) -> Any:
    """`value` as the setting holds it. Raises Unfit for a wrong type, an unknown choice, and a number out of range."""
    if about.kind == "choice":
        return _choice(value, about.choices)
    result = _CONVERTERS[about.kind](value)
    require_in_range(about, result)
    return result


def require_in_range(about: About, value: object) -> None:
    """Nothing; raises Unfit for a number that is not finite or out of range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    checks = (
        about.least is None or value >= about.least,
        about.above is None or value > about.above,
        about.most is None or value <= about.most,
        about.below is None or value < about.below,
    )
    if not all(checks) or not math.isfinite(value):
        finite = "" if math.isfinite(value) else "a finite number"
        raise Unfit(" ".join(part for part in (finite, about.range_text) if part))


def shown(value: object) -> str:
    """`value` as YAML would have it, short enough for a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _int(value: object) -> int:
    if isinstance(value, float) and value.is_integer():  # 1e3
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit("a whole number", _number_fix(value))
    return value


def _float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit("a number", _number_fix(value))
    try:
        return float(value)
    except OverflowError:
        raise Unfit("a finite number") from None


def _number_fix(value: object) -> str:
    if isinstance(value, bool):
        return "write a number; YAML reads yes, no, on and off as true and false"
    if isinstance(value, str) and _is_number(value):
        return "remove the quotes"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise Unfit("true or false", "remove the quotes" if str(value).lower() in ("true", "false") else "")
    return value


def _text(value: object) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise Unfit("text", "put it in quotes" if not isinstance(value, list | tuple | dict) else "give one text")
    if not text.strip() or "\0" in text:
        raise Unfit("text that is not empty", "remove the line, or give a value")
    return text


def _paths(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(_text(item) for item in value)
    return (_text(value),)


def _names(value: object) -> str | tuple[str, ...]:
    """Names from a list or a comma-separated text; the words that stand for a whole ('none', 'all-linear') stay a text."""
    items = value if isinstance(value, list | tuple) else _text(value).split(",")
    names = tuple(_text(item).strip() for item in items)
    if not names:
        raise Unfit("one name or more", "remove the line")
    return names[0] if names in (("none",), ("all-linear",)) else names


def _int_or_auto(value: object) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and value.isascii() and value.isdigit():  # a flag has no other way to bring a number
        return int(value)
    try:
        return _int(value)
    except Unfit as unfit:
        raise Unfit("a whole number, or auto", unfit.fix) from None


def _count_or_share(value: object) -> int | float:
    try:
        number = _float(value)
    except Unfit as unfit:
        raise Unfit("a whole number, or a fraction below 1", unfit.fix) from None
    if not math.isfinite(number):
        raise Unfit("a finite number")
    if number >= 1 and not number.is_integer():
        raise Unfit("a whole number, or a fraction below 1")
    return int(number) if number.is_integer() else number


_CONVERTERS: Mapping[Kind, Callable[[object], Any]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "text": _text,
    "paths": _paths,
    "names": _names,
    "int or auto": _int_or_auto,
    "count or share": _count_or_share,
}


def _choice(value: object, choices: tuple[str, ...]) -> str:
    if isinstance(value, bool) and "on" in choices:  # YAML reads on and off as truth values
        value = "on" if value else "off"
    if value in choices:
        return str(value)
    near = difflib.get_close_matches(str(value), choices, n=1)
    raise Unfit(f"one of {', '.join(choices)}", f"did you mean {near[0]}?" if near else "")

"""JSON without its traps: values enter as plain JSON, text is read strictly (no duplicate keys, no NaN)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any


def plain(value: Any) -> Any:
    """`value` as JSON can say it, equal after writing and reading. Floats that are not finite become 'nan', 'inf', '-inf'."""
    if value is None or (isinstance(value, bool | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def to_text(value: Any, *, indent: int | None = None) -> str:
    """JSON text of `value`, keys in their order, ASCII only so that no terminal or editor can spoil it."""
    return json.dumps(plain(value), indent=indent, allow_nan=False, separators=None if indent else (",", ":"))


def canonical(value: Any) -> bytes:
    """One and only one spelling of `value`, for hashing."""
    return json.dumps(plain(value), sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def read_strictly(text: str) -> Any:
    """The value of JSON text. ValueError, with a sentence, for malformed text, duplicate keys and NaN or Infinity."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON ({error.msg}, line {error.lineno} column {error.colno})") from None
    except RecursionError:
        raise ValueError("is not usable JSON (nested too deeply)") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"has the key {repeated!r} twice")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"holds {name}, which is not JSON")

"""Options that are numbers: a value enters, nothing leaves, or a ConfigError that names it."""

from __future__ import annotations

import math

from orpo.errors import ConfigError


def require_above_zero(name: str, value: float, *, fix: str) -> None:
    """Nothing; raises ConfigError unless `value` is finite and above 0."""
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}", expected="a finite number above 0", fix=fix)


def require_not_negative(name: str, value: float, *, fix: str) -> None:
    """Nothing; raises ConfigError unless `value` is finite and 0 or more."""
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} is {value}", expected="a finite number, 0 or more", fix=fix)


def require_finite(name: str, value: float, *, fix: str) -> None:
    """Nothing; raises ConfigError unless `value` is finite."""
    if not math.isfinite(value):
        raise ConfigError(f"{name} is {value}", expected="a finite number", fix=fix)

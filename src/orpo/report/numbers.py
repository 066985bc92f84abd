"""Numbers for people: a value from a file enters, a short spelling leaves; the exact value stays beside it in the page."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from orpo.report.markup import Html, element

MINUS = "\u2212"
THIN_SPACE = "\u202f"
MISSING = "\u2013"


def as_number(value: Any) -> float | None:
    """`value` as a finite float; None for everything else, such as the null that stands for a value that is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int of 400 digits is valid JSON
        return None
    return number if math.isfinite(number) else None


def count(value: float) -> str:
    """1234567 -> '1 234 567', with thin spaces that do not break."""
    return f"{value:,.0f}".replace(",", THIN_SPACE).replace("-", MINUS)


def nats(value: float) -> str:
    """Two decimals, three below 0.1, where the second would be all there is."""
    if abs(value) < 0.0005:
        return "0.00"
    text = f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
    return text.replace("-", MINUS)


def percent(value: float) -> str:
    """0.883 -> '88 %'. One decimal where rounding would claim 0 or 100 % of what is neither."""
    shown = f"{100 * value:.0f}"
    if shown in ("0", "100", "-0") and value not in (0.0, 1.0):
        shown = f"{100 * value:.1f}"
    return f"{shown}{THIN_SPACE}%".replace("-", MINUS)


def short(value: float) -> str:
    """Three significant digits in the plainest form: 8e−6, 0.125, 3.1, 12 400, 3.2 M."""
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-2:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", MINUS)
    for limit, suffix in ((1e9, "G"), (1e6, "M")):
        if size >= limit:
            return f"{_trimmed(value / limit)}{THIN_SPACE}{suffix}"
    return count(value) if size >= 1000 else _trimmed(value)


def duration(seconds: float) -> str:
    """75.2 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{_trimmed(seconds)}{THIN_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{THIN_SPACE}h {minutes}{THIN_SPACE}min" if hours else f"{minutes}{THIN_SPACE}min {rest}{THIN_SPACE}s"


def moment(time: object) -> str:
    """An ISO 8601 time as '2026-01-05 10:00 UTC'; what is no time as it stands."""
    try:
        return datetime.fromisoformat(str(time)).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return str(time)


def datum(value: float | None, spelled: str, *, class_: str | None = None) -> Html:
    """`<data>` that shows `spelled` and holds the exact value as it stands in the file; a dash when there is none."""
    if value is None:
        return element("span", MISSING, class_=class_)
    return element("data", spelled, value=repr(value), class_=class_)


def _trimmed(value: float) -> str:
    text = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return text.replace("-", MINUS)

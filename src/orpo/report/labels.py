"""Names on drawings: a name of anybody's enters, one line that fits its place leaves. SVG text does not wrap."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

from orpo.report.escape import visible

ELLIPSIS = "\u2026"
MOST = 400
"""Letters of a name that are looked at: no drawing has room for as many."""
_WIDE, _NARROW = frozenset("mwMW@%&") | {ELLIPSIS}, frozenset("iljtfrI.,:;'|!()[] ")


def text_width(text: str, *, size: float = 12.5) -> float:
    """About how wide `text` is in a sans serif of `size`; rather too much than too little."""
    return size * sum(_em(character) for character in text)


def _em(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if character in _WIDE:
        return 0.95
    return 0.33 if character in _NARROW else 0.72 if character.isupper() else 0.6


def fitted(text: str, most: float, *, size: float = 12.5) -> str:
    """`text` on one line, its middle left out where it would be wider than `most`: names differ at both ends."""
    line = " ".join(visible(text[:MOST]).split())[:MOST]
    if text_width(line, size=size) <= most:
        return line
    return _shortened(line, bisect_right(range(len(line)), most, key=lambda kept: text_width(_shortened(line, kept), size=size)) - 1)


def _shortened(line: str, kept: int) -> str:
    head = (kept + 1) // 2
    return line[:head].rstrip() + ELLIPSIS + line[len(line) - (kept - head) :].lstrip()


def fitted_names(names: Sequence[str], most: float) -> tuple[str, ...]:
    """`names`, each fitted; those that became equal by it get their place in the list in front."""
    short = [fitted(name, most) for name in names]
    return tuple(
        f"{i}: {fitted(name, most - 22)}" if short.count(cut) > 1 else cut
        for i, (name, cut) in enumerate(zip(names, short, strict=True), start=1)
    )

"""From the first rows to the one shape they have; two that fit, or none, is an error that says how to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from orpo.data.columns import by_role
from orpo.data.row import Row
from orpo.data.shapes.answers import MEDIA
from orpo.data.shapes.kinds import Kind, column_kinds, fits, kind_of
from orpo.data.shapes.shape import Shape
from orpo.errors import DataError

HINTS = {
    "prompt": ("question", "query", "instruction", "input", "context", "text", "user", "post", "problem"),
    "chosen": ("good", "better", "preferred", "accepted", "win", "winner", "positive", "best", "chosen_response", "preferred_output"),
    "rejected": ("bad", "worse", "dispreferred", "lose", "loser", "negative", "worst", "rejected_response", "non_preferred_output"),
    "completion": ("response", "answer", "output", "generation"),
    "label": ("feedback", "is_good", "thumbs_up", "desirable"),
    "responses": ("answers", "candidates", "completions", "outputs", "generations"),
    "scores": ("ratings", "rewards", "score", "rating", "reward"),
    "ranks": ("rank", "ranking", "rankings"),
}
"""Names that people give to the columns that play a role: used to suggest a mapping, never to make one."""


def detect(rows: Sequence[Row], columns: Mapping[str, str], shapes: Sequence[Shape]) -> Shape:
    """The one shape that the rows have, bound to the --columns mapping; DataError when none or more than one fits."""
    if not rows:
        raise DataError("there are no rows", expected="at least one row", doing="reading the shape of the data")
    views = [by_role(row.value, columns) for row in rows]
    _check_mapped(rows, columns)
    _refuse_media(rows)
    kinds = column_kinds(views, always=columns)
    usable = [shape for shape in shapes if columns.keys() <= shape.roles]
    matching = [shape for shape in usable if shape.matches(kinds, views)]
    empty = [] if matching else [name for name, kind in kinds.items() if kind is Kind.EMPTY]
    matching = matching or [shape for shape in usable if shape.matches(kinds, views, empty_fits=True)]
    best = [shape for shape in matching if not any(other.refines(shape) for other in matching)]
    if not best:
        raise _unknown(rows, kinds, usable or shapes, columns)
    if len(best) > 1:
        raise _all_empty(rows, empty) if empty else _ambiguous(rows, best)
    return replace(best[0], columns=dict(columns))


def _check_mapped(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    found = list(dict.fromkeys(name for row in rows for name in row.value))
    for role, column in columns.items():
        if column not in found:
            near = get_close_matches(column, map(str, found), n=1)
            fix = f"did you mean --columns {role}={near[0]}?" if near else "name a column of the file"
            problem = f"--columns {role}={column}: there is no column {column!r}; columns found: {', '.join(map(str, found))}"
            raise DataError(problem, where=str(rows[0].source), fix=fix)


def _refuse_media(rows: Sequence[Row]) -> None:
    for column in MEDIA:
        filled = [row for row in rows if kind_of(row.value.get(column)) is not Kind.EMPTY]
        if 2 * len(filled) > len(rows):
            problem = f"column '{column}' is filled in: only text is supported, images, sound and video are not"
            raise DataError(problem, where=str(filled[0].source), fix="use the rows that are text alone, without this column")


def _all_empty(rows: Sequence[Row], names: Sequence[str]) -> DataError:
    problem = f"the shape of the rows cannot be told: empty in the first {len(rows)} rows: {', '.join(names)}"
    return DataError(problem, where=str(rows[0].source), expected="text or messages there", fix="fill them in, or remove these rows")


def _ambiguous(rows: Sequence[Row], shapes: Sequence[Shape]) -> DataError:
    names = " and ".join(f"'{shape.name}' ({_needs(shape)})" for shape in shapes)
    ways = [_way_to_choose(shape, [other for other in shapes if other is not shape]) for shape in shapes]
    return DataError(
        f"the rows fit more than one shape: {names}",
        where=str(rows[0].source),
        doing="reading the shape of the data",
        fix="; ".join(ways),
    )


def _way_to_choose(shape: Shape, others: Sequence[Shape]) -> str:
    """The flag that leaves only this shape, or the columns to take away."""
    own = [role for role in shape.needs if all(role not in other.roles for other in others)]
    if own:
        return f"for '{shape.name}' --columns " + ",".join(f"{role}={role}" for role in own)
    extra = dict.fromkeys(name for other in others for name in (*other.needs, *other.marks) if name not in shape.needs)
    return f"for '{shape.name}' leave out " + ", ".join(f"'{name}'" for name in extra)


def _unknown(rows: Sequence[Row], kinds: Mapping[str, Kind], shapes: Sequence[Shape], columns: Mapping[str, str]) -> DataError:
    found = ", ".join(f"{columns.get(name, name)} ({kind})" for name, kind in kinds.items()) or "none"
    by_columns = [shape for shape in shapes if shape.like is None]
    nearest = max(by_columns or shapes, key=lambda shape: _nearness(shape, kinds))
    missing = [name for name in nearest.needs if name not in kinds]
    wrong = [name for name, need in nearest.needs.items() if name in kinds and not fits(kinds[name], need)]
    details = [f"there is no {', '.join(missing)}"] if missing else []
    details += [f"{name} is {kinds[name]}" for name in wrong]
    detail = f"; of the nearest known shape, '{nearest.name}' ({_needs(nearest)}), " + " and ".join(details) if details else ""
    return DataError(
        f"the shape of the rows is not known; columns found: {found}{detail}",
        where=str(rows[0].source),
        doing="reading the shape of the data",
        expected="a prompt, a chosen and a rejected answer in each row; all shapes: docs/data-formats.md",
        fix=f"say which column is which: --columns {_suggested(nearest, kinds, columns)}" if missing else "",
    )


def _nearness(shape: Shape, kinds: Mapping[str, Kind]) -> float:
    """How much of the shape the columns have, 0 to 1: a column of the right name and kind counts more than one that may be meant."""
    total = 0.0
    for name, need in shape.needs.items():
        if name in kinds:
            total += 1.0 if fits(kinds[name], need) else 0.5
        elif _meant(name, need, kinds, shape):
            total += 0.6
    return total / len(shape.needs)


def _meant(role: str, need: Kind, kinds: Mapping[str, Kind], shape: Shape) -> str:
    """The column that may be meant by the role, '' if none."""
    free = {name: kind for name, kind in kinds.items() if name not in shape.needs and fits(kind, need)}
    hinted = [name for name in free if name.lower() in HINTS.get(role, ())]
    return hinted[0] if hinted else next(iter(get_close_matches(role, free, n=1, cutoff=0.75)), "")


def _suggested(shape: Shape, kinds: Mapping[str, Kind], columns: Mapping[str, str]) -> str:
    """The mapping given so far and, for each missing role, the column that may be meant (NAME where none is near)."""
    wanted = dict(columns)
    for role, need in shape.needs.items():
        if role not in kinds:
            wanted.setdefault(role, _meant(role, need, kinds, shape) or "NAME")
    return ",".join(f"{role}={column}" for role, column in wanted.items())


def _needs(shape: Shape) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in shape.needs.items())

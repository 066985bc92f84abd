"""Single rows of a data set, read once more for a person to see: paths and places enter, examples and problems leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orpo.core.records import Reads, Source
from orpo.data.example import Example, as_example
from orpo.data.formats import detect_shape, read_records
from orpo.data.row import Problem, Row
from orpo.data.rows import open_data
from orpo.errors import ConfigError

ROWS_FOR_SHAPE = 64


def examples_again(
    paths: Sequence[str], *, columns: Mapping[str, str] | None, reads: Reads, pair_labelled: bool
) -> Iterator[Example | Problem]:
    """The examples of `paths` in order, with the errors and dropped rows among them; nothing of a path whose shape is not known.

    As `check_data` reads them, and lazily: the first rows of a large file cost no pass over it.
    """
    for path in paths:
        reader = open_data(path)
        _, rows = first_rows(iter(reader))
        if rows:
            records = read_records(detect_shape(rows, columns=columns), reader.__iter__, reads=reads, pair_labelled=pair_labelled)
            examples = (item if isinstance(item, Problem) else as_example(item, reads) for item in records)
            yield from (item for item in examples if isinstance(item, Example) or item.severity != "warning")


def first_rows(items: Iterator[Row | Problem]) -> tuple[list[Row | Problem], list[Row]]:
    """The first items up to the 64th row, and the rows among them: they tell the shape."""
    first: list[Row | Problem] = []
    rows: list[Row] = []
    for item in items:
        first.append(item)
        if isinstance(item, Row):
            rows.append(item)
        if len(rows) == ROWS_FOR_SHAPE:
            break
    return first, rows


def rows_at(places: Sequence[str], items: Iterator[Example | Problem]) -> list[Example | Problem]:
    """The rows at `places`, in the order of the data; reading ends when all were found.

    A place is FILE:LINE as errors give it, or a line number alone. Raises ConfigError where there is no such row.
    """
    missing = list(dict.fromkeys(places))
    found: list[Example | Problem] = []
    for item in items:
        names = _names(item.source)
        if not names.isdisjoint(missing):
            found.append(item)
            missing = [place for place in missing if place not in names]
        if not missing:
            return found
    raise ConfigError(
        f"there is no row at {', '.join(missing)}",
        doing="looking for the rows to show",
        expected="FILE:LINE as errors give it, or the line on which a row starts",
        fix="see the places that orpo check names",
    )


def _names(source: Source | None) -> set[str]:
    """What a row may be called."""
    return set() if source is None else {str(source), str(source.number), f"{source.file}:{source.number}"}

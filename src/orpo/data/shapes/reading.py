"""Rows of a known shape -> records and problems, in one pass over the rows (two to pair labelled answers), in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from tempfile import SpooledTemporaryFile
from typing import Any

from orpo.core.records import PreferencePair, Reads, Record, Source
from orpo.data.row import Problem, Row
from orpo.data.shapes.shape import Shape
from orpo.errors import ConfigError, DataError

ReadRows = Callable[[], Iterable[Row | Problem]]
"""Starts over at each call. Problems of the file itself are handed through."""
_AS_THEY_ARE = "train on them as they are: --objective kto or ulma"
_WAITING_BYTES = 64 * 2**20
"""Rows that wait for their partner beyond this many bytes go to a temporary file."""


def read_records(shape: Shape, read_rows: ReadRows, *, reads: Reads = "pairs", pair_labelled: bool = False) -> Iterator[Record | Problem]:
    """What an objective that reads `reads` gets of all rows, and their problems.

    Labelled answers and rankings come as they are where they are read as such. Pairs come as pairs to all objectives; to one that reads
    pairs, a ranking comes as its best answer against its worst. DataError where the rows cannot be what is read; ConfigError as in
    `read_pairs`.
    """
    if reads == "pairs" or shape.holds == "pairs" or pair_labelled:
        return read_pairs(shape, read_rows, pair_labelled=pair_labelled)
    if shape.holds != reads:
        raise labelled_refusal(shape, read_rows) if shape.is_labelled else ranked_refusal(shape, read_rows)
    rows = _with_column_warning(shape, read_rows())
    return (item for row in rows for item in (shape.to_records(row) if isinstance(row, Row) else (row,)))


def read_pairs(shape: Shape, read_rows: ReadRows, *, pair_labelled: bool = False) -> Iterator[PreferencePair | Problem]:
    """The pairs and problems of all rows; labelled answers are read twice, so `read_rows` must start over at each call.

    DataError for labelled answers unless `pair_labelled`; ConfigError for `pair_labelled` with rows that are pairs.
    """
    if pair_labelled and not shape.is_labelled:
        raise ConfigError(f"--pair-labelled: the rows are pairs already (shape '{shape.name}')", fix="leave --pair-labelled out")
    if shape.is_labelled and not pair_labelled:
        raise labelled_refusal(shape, read_rows)
    rows = _with_column_warning(shape, read_rows())
    if shape.is_labelled:
        return _labelled_pairs(shape, rows, _partners(shape, _rows_alone(read_rows())))
    return (item for row in rows for item in (shape.to_pairs(row) if isinstance(row, Row) else (row,)))


def labelled_refusal(shape: Shape, read_rows: ReadRows) -> DataError:
    """The error for labelled answers where pairs are wanted: it says how many prompts have both labels."""
    labels: dict[bytes, set[bool]] = {}
    where = ""
    for row in _rows_alone(read_rows()):
        where = where or str(row.source)
        answer = shape.labelled(row)
        if not isinstance(answer, Problem):
            labels.setdefault(answer.group_key, set()).add(answer.is_good)
    both = sum(len(found) == 2 for found in labels.values())
    if both:
        fix = f"these can be paired because {both} of {len(labels)} prompts have both labels: pass --pair-labelled; or {_AS_THEY_ARE}"
    else:
        fix = f"these cannot be paired: none of {len(labels)} prompts has both a good and a bad answer; give pairs, or {_AS_THEY_ARE}"
    problem = f"labelled data: each row holds one answer, called good or bad (shape '{shape.name}'), not a pair"
    return DataError(problem, where=where, expected="a chosen and a rejected answer to each prompt", fix=fix)


def ranked_refusal(shape: Shape, read_rows: ReadRows) -> DataError:
    """The error for ranked answers where labelled ones are wanted: a place in an order does not say whether an answer is desirable."""
    where = next((str(row.source) for row in _rows_alone(read_rows())), "")
    return DataError(
        f"ranked data: each row holds answers with scores or ranks (shape '{shape.name}'), which do not say what is desirable",
        where=where,
        expected="answers that are each called desirable or not, or a chosen and a rejected answer to each prompt",
        fix="give each answer a row with prompt, completion and label; or take an objective that reads rankings (pro) or pairs (orpo)",
    )


def _rows_alone(items: Iterable[Row | Problem]) -> Iterator[Row]:
    return (item for item in items if isinstance(item, Row))


def _with_column_warning(shape: Shape, rows: Iterable[Row | Problem]) -> Iterator[Row | Problem]:
    """The rows, and one warning at the first whose extra columns are not those of the first row."""
    expected: set[str] | None = None
    is_told = False
    for row in rows:
        if isinstance(row, Problem):
            yield row
            continue
        extra = set(shape.extra_columns(row))
        expected = extra if expected is None else expected
        if extra != expected and not is_told:
            names = ", ".join(sorted(map(str, extra ^ expected)))
            yield Problem("extra-columns", f"columns that only some rows have: {names}", row.source, "warning", "they stay as metadata")
            is_told = True
        yield row


def _partners(shape: Shape, rows: Iterable[Row]) -> dict[int, int]:
    """Row number -> number of its partner: the k-th good answer to a prompt and the k-th bad one. About 200 bytes a row."""
    alone: dict[bytes, tuple[list[int], list[int]]] = {}
    partners: dict[int, int] = {}
    for number, row in enumerate(rows):
        answer = shape.labelled(row)
        if isinstance(answer, Problem):
            continue
        lists = alone.setdefault(answer.group_key, ([], []))
        lists[answer.is_good].append(number)
        if lists[0] and lists[1]:
            good, bad = lists[1].pop(0), lists[0].pop(0)
            partners[good], partners[bad] = bad, good
    return partners


def _labelled_pairs(shape: Shape, rows: Iterable[Row | Problem], partners: Mapping[int, int]) -> Iterator[PreferencePair | Problem]:
    number = -1
    with WaitingRows() as waiting:
        for row in rows:
            if isinstance(row, Problem):
                yield row
                continue
            number += 1
            answer = shape.labelled(row)
            if isinstance(answer, Problem):
                yield answer
            elif number not in partners:
                missing = "bad" if answer.is_good else "good"
                yield Problem("unpaired", f"no {missing} answer to the same prompt is left to pair it with", row.source, "dropped")
            elif partners[number] > number:
                waiting.put(number, row)
            else:
                other = waiting.take(partners[number])
                yield from shape.pair_of(row, other) if answer.is_good else shape.pair_of(other, row)


class WaitingRows:
    """Rows that wait for their partner, as JSON in memory up to a limit, beyond it in an unnamed temporary file."""

    def __init__(self, *, max_bytes: int = _WAITING_BYTES) -> None:
        self._file = SpooledTemporaryFile(max_size=max_bytes)  # noqa: SIM115 closed by __exit__
        self._places: dict[int, tuple[int, int, Source]] = {}

    def __enter__(self) -> WaitingRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, number: int, row: Row) -> None:
        """Keeps the row until `take`. Values that are no JSON, such as dates, are kept as their text."""
        text = json.dumps(row.value, default=_as_json).encode()
        start = self._file.seek(0, 2)
        self._file.write(text)
        self._places[number] = (start, len(text), row.source)

    def take(self, number: int) -> Row:
        """The row, which is then forgotten."""
        start, length, source = self._places.pop(number)
        self._file.seek(start)
        return Row(json.loads(self._file.read(length)), source)


def _as_json(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)

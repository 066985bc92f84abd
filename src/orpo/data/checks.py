"""One pass over all rows of a data set: paths enter; a report, the tokenized examples and a fingerprint leave. No model is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from orpo.core.records import Reads, Source
from orpo.data.data_report import FILE_KINDS, DataReport, Tally, token_statistics
from orpo.data.formats import Shape, detect_shape, read_records
from orpo.data.gathering import Gathering
from orpo.data.judging import judged
from orpo.data.label_balance import label_figures
from orpo.data.limits import Overlong
from orpo.data.row import Problem, Row
from orpo.data.rows import RowReader, open_data
from orpo.data.shown_rows import first_rows
from orpo.data.store import TokenStore
from orpo.data.templates import Template, tokenizer_fingerprint
from orpo.data.traces import RowTraces
from orpo.errors import ConfigError, DataError

ERRORS_SHOWN = 20
_PLACE = re.compile(r"(?P<file>.+):(?P<row>row )?(?P<number>\d+)")


@dataclass(frozen=True, slots=True)
class CheckedData:
    """The result of a check. Without a tokenizer there is no `store` and no `template`.

    `fingerprint` changes when the same run would see other data: file hashes in order, rows, tokenizer, template, limits, what is read.
    `traces` tell the examples, in the order of `store`, from those of other data.
    """

    report: DataReport
    shapes: tuple[Shape, ...]
    store: TokenStore | None
    template: Template | None
    fingerprint: Mapping[str, Any]
    traces: RowTraces
    failure: DataError | None = None

    def raise_if_errors(self) -> None:
        """Raises DataError, whose text begins with file and line of the first error, unless the data can be trained on."""
        if self.failure is not None and len(self.report.errors) == 1:
            raise self.failure
        if not self.report.ok:
            raise _data_error(self.report)


def check_data(
    paths: Sequence[str],
    *,
    tokenizer: Any = None,
    template: str | Template = "auto",
    columns: Mapping[str, str] | None = None,
    max_length: int | None = None,
    overlong: Overlong = "drop",
    max_bad_rows: int = 0,
    pair_labelled: bool = False,
    reads: Reads = "pairs",
    max_positions: int | None = None,
    opened: Mapping[str, RowReader] | None = None,
) -> CheckedData:
    """What is in the rows of `paths` (files, folders, Hub ids), in one pass and bounded memory; with `tokenizer`, also their tokens.

    `reads` is what the objective reads. "pairs": two completions, chosen and rejected. "labelled": a labelled answer has one completion and
    its label, a pair two with the labels (True, False); rankings are refused. "rankings": a ranking has its completions best first
    with falling scores, a pair two without scores; labelled answers are refused unless `pair_labelled`.

    `max_positions` are those of the model: no larger max_length is suggested.

    Problems are gathered, not raised: call `raise_if_errors`. A resolved `template`, such as that of the training data, is used as it
    is; `opened` has the rows of paths that stand for data in memory. Raises ConfigError for settings that cannot be, StorageError when
    the temporary folder is full.
    """
    if not paths:
        raise ConfigError("no data is given", fix="name a file, a folder or a Hub id with --data")
    seen = Gathering(tokenizer, max_length, overlong, reads)
    readers: list[RowReader] = []
    shapes: dict[str, Shape] = {}
    failure = None
    for path in paths:
        try:
            reader = opened[path] if opened and path in opened else open_data(path)
            readers.append(reader)
            _check_path(path, reader, seen, shapes, columns=columns, choice=template, pair_labelled=pair_labelled)
        except DataError as error:
            failure = failure or error
            seen.tally.add(_as_problem(error, path), is_row=False)
    repeats = judged(seen, paths, max_bad_rows)
    return _checked(seen, readers, shapes, repeats=repeats, max_positions=max_positions, max_bad_rows=max_bad_rows, failure=failure)


def _check_path(
    path: str,
    reader: RowReader,
    seen: Gathering,
    shapes: dict[str, Shape],
    *,
    columns: Mapping[str, str] | None,
    choice: str | Template,
    pair_labelled: bool,
) -> None:
    """Adds the rows of one path to `seen`. Raises DataError when they have no known shape, or not that of the paths before."""
    items = iter(reader)
    first, told = first_rows(items)
    if not told:
        for problem in _counted(first, seen.tally):
            assert isinstance(problem, Problem)
            seen.tally.add(problem)
        return
    shape = detect_shape(told, columns=columns)
    _ensure_same_shape(path, shape, shapes)
    shapes[path] = shape
    seen.use_template(choice, is_chat=shape.is_chat, is_transcript=shape.is_transcript)
    rows = _restartable(_counted(chain(first, items), seen.tally), reader)
    seen.add(read_records(shape, rows, reads=seen.reads, pair_labelled=pair_labelled))


def _restartable(first_pass: Iterator[Row | Problem], reader: RowReader) -> Callable[[], Iterable[Row | Problem]]:
    """What starts a pass: first the one that told the shape goes on, later ones (labelled answers are read twice) begin anew."""
    passes = [first_pass]
    return lambda: passes.pop() if passes else iter(reader)


def _counted(items: Iterable[Row | Problem], tally: Tally) -> Iterator[Row | Problem]:
    """The same items; each row, readable or not, is counted."""
    for item in items:
        tally.rows += isinstance(item, Row) or (item.severity != "warning" and item.kind not in FILE_KINDS)
        yield item


def _ensure_same_shape(path: str, shape: Shape, shapes: Mapping[str, Shape]) -> None:
    for other, known in islice(shapes.items(), 1):
        if known.name != shape.name:
            raise DataError(
                f"the rows of {path} have the shape '{shape.name}', those of {other} the shape '{known.name}'",
                where=f"{path}:1",
                doing="reading several files as one data set",
                expected="the same shape in all files",
                fix="bring the files into one shape, or train on one of them",
            )


def _checked(
    seen: Gathering,
    readers: Sequence[RowReader],
    shapes: Mapping[str, Shape],
    *,
    repeats: Mapping[str, Any],
    max_positions: int | None,
    max_bad_rows: int,
    failure: DataError | None,
) -> CheckedData:
    files = [{"path": str(file.path), "sha256": file.sha256, "size": file.size} for reader in readers for file in reader.files]
    tokens = token_statistics(seen.store, seen.tally.notes) if seen.store is not None else None
    report = seen.tally.report(
        pairs=len(seen.traces),
        shape=" + ".join(dict.fromkeys(shape.name for shape in shapes.values())) or "unknown",
        max_bad_rows=max_bad_rows,
        files=tuple(files),
        template=seen.template.description if seen.template else None,
        tokens=tokens,
        reads=seen.reads,
        noun=seen.noun,
        answers=_answer_figures(seen),
        lengths=seen.lengths.figures(),
        repeats=repeats,
        max_lengths=seen.full_lengths.table(max_length=seen.max_length, max_positions=max_positions),
    )
    fingerprint: dict[str, Any] = {
        "files": [file["sha256"] for file in files],
        "rows": report.rows,
        "pairs": report.pairs,
        "tokenizer": tokenizer_fingerprint(seen.tokenizer) if seen.tokenizer is not None else None,
        "template": seen.template.fingerprint if seen.template else None,
        "max_length": seen.max_length,
        "overlong": seen.overlong,
        "columns": {role: name for shape in shapes.values() for role, name in shape.columns.items()},
    }
    if seen.reads != "pairs":
        fingerprint["reads"] = seen.reads
    return CheckedData(report, tuple(shapes.values()), seen.store, seen.template, fingerprint, seen.traces, failure)


def _answer_figures(seen: Gathering) -> dict[str, Any] | None:
    """How many answers of which label, or how many rankings of which length; None for pairs."""
    if seen.reads == "labelled":
        return dict(label_figures(seen.labels[True], seen.labels[False], seen.possible_pairs))
    return {"lengths": {str(size): num for size, num in sorted(seen.sizes.items())}} if seen.reads == "rankings" else None


def _as_problem(error: DataError, path: str) -> Problem:
    match = _PLACE.fullmatch(error.where)
    source = Source(match["file"], int(match["number"]), match["row"] is None) if match else Source(error.where or path, 1)
    expected = f"; expected {error.expected}" if error.expected else ""
    return Problem("unreadable", f"{error.problem}{expected}", source, fix=error.fix)


def _data_error(report: DataReport) -> DataError:
    first, *others = report.errors[:ERRORS_SHOWN]
    lines = [first.message, *(f"{problem.source or ''}: {problem.message}" for problem in others)]
    more = report.num_errors - len(lines)
    lines += [f"... and {more:,} more errors"] * bool(more)
    found = "1 error" if report.num_errors == 1 else f"{report.num_errors:,} errors"
    summary = f"checking the data: {found}, {report.max_bad_rows:,} bad rows allowed (--max-bad-rows)"
    return DataError("\n".join(lines), where=str(first.source or ""), doing=summary, fix=first.fix)

"""Prompts to reply to: a file enters; prompts leave, each with its place. Preference data serve as well, without their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from orpo.core.records import Conversation, Source, Text
from orpo.data.byte_streams import ByteFile, numbered_lines
from orpo.data.checks import ERRORS_SHOWN
from orpo.data.columns import by_role
from orpo.data.example import Example
from orpo.data.formats import detect_shape
from orpo.data.found_files import missing
from orpo.data.json_rows import giant
from orpo.data.json_values import BadValue, utf8_text
from orpo.data.row import Problem, Row
from orpo.data.row_file import MAX_ROW_BYTES, FileDigest
from orpo.data.rows import open_data
from orpo.data.shapes.answers import check_prompt, refuse_media, with_system
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.instructions import alpaca_prompt, user
from orpo.data.shapes.kinds import Kind, column_kinds, messages_as_text
from orpo.data.shapes.problems import RowProblem
from orpo.data.shown_rows import ROWS_FOR_SHAPE
from orpo.data.transcripts import looks_like_transcript, parse_transcript
from orpo.errors import DataError


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as text or as messages that end with the turn to answer; `row` is all that the file says there.

    `had_answer`: its messages went on with an answer, which is left out.
    """

    prompt: Text | Conversation
    source: Source
    tools: tuple[Mapping[str, Any], ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    had_answer: bool = False

    @property
    def example(self) -> Example:
        """The prompt as the tokenizer takes it."""
        return Example(self.prompt, (), self.source, self.tools)


@dataclass(frozen=True, slots=True)
class PromptFile:
    """The prompts of a file in its order, what is worth saying about them, and the files that they were read from."""

    prompts: tuple[Prompt, ...]
    notes: tuple[str, ...]
    files: tuple[FileDigest, ...]


def read_prompts(path: str, *, columns: Mapping[str, str] | None = None, limit: int | None = None) -> PromptFile:
    """The first `limit` prompts of `path`: jsonl, json, csv, tables, .txt with one on each line. DataError names file and line.

    One column out of READERS holds them. Where several are there, or none, the rows must be preference data, and are read as in training.
    """
    items, digests = _opened(path)
    first = list(islice(items, ROWS_FOR_SHAPE))
    rows = [item for item in first if isinstance(item, Row)]
    seen = _Seen(_reading(rows, columns or {}) if rows else None)
    seen.take(chain(first, items), limit)
    return PromptFile(seen.all_prompts(path), seen.notes(), tuple(digests()))


def _opened(path: str) -> tuple[Iterator[Row | Problem], Callable[[], Sequence[FileDigest]]]:
    """The rows of a file, and what gives the hashes of its bytes."""
    if Path(path).suffix.lower() == ".txt":
        file = _text_file(Path(path).expanduser())
        return _text_rows(file), lambda: [file.digest()]
    reader = open_data(path)
    return iter(reader), lambda: reader.files


def _text_file(path: Path) -> ByteFile:
    if not path.exists():
        raise missing(path)
    if not path.is_file():
        raise DataError("not a regular file", where=str(path), expected="a text file with a prompt on each line")
    return ByteFile(path, str(path), "")


def _text_rows(file: ByteFile) -> Iterator[Row | Problem]:
    """A row with a prompt for each line that is not blank."""
    with file.open() as stream:
        for number, _, line in numbered_lines(stream, MAX_ROW_BYTES):
            source = Source(file.name, number)
            if len(line) > MAX_ROW_BYTES:
                yield giant(source, "a line", MAX_ROW_BYTES)
            elif not line.isspace():
                try:
                    yield Row({"prompt": utf8_text(line.rstrip(b"\r\n"))}, source)
                except BadValue as bad:
                    yield bad.problem(file.name, number)


Read = Callable[[Row], Prompt | Problem]


def _reading(rows: Sequence[Row], columns: Mapping[str, str]) -> Read:
    """How these rows are read. DataError where that cannot be told."""
    kinds = column_kinds([by_role(row.value, columns) for row in rows], always=columns)
    found = [role for role in READERS if kinds.get(role, Kind.EMPTY) is not Kind.EMPTY]
    mapped = [role for role in found if role in columns]
    if len(mapped or found) == 1:
        return _column_reader((mapped or found)[0], columns)
    try:
        shape = detect_shape(rows, columns=columns)
    except DataError as error:
        raise _not_told(rows, found, error) from error

    def read(row: Row) -> Prompt | Problem:
        record = shape.to_records(row)[0]
        return record if isinstance(record, Problem) else Prompt(record.prompt, record.source, record.tools, row.value)

    return read


def _not_told(rows: Sequence[Row], found: Sequence[str], error: DataError) -> DataError:
    """Why it is not known where the prompts are."""
    if found:
        problem = f"several columns may be the prompt: {', '.join(found)}"
        fix = f"name the one that is meant: --columns {found[0]}={found[0]}"
    else:
        names = list(dict.fromkeys(str(name) for row in rows for name in row.value))
        problem = f"no column holds a prompt; columns found: {', '.join(names) or 'none'}"
        fix = "say which column it is: --columns prompt=NAME"
    expected = f"one of the columns {', '.join(READERS)}, or preference data ({error.problem.partition(';')[0]})"
    return DataError(problem, where=str(rows[0].source), doing="looking for the prompts", expected=expected, fix=fix)


def _column_reader(role: str, columns: Mapping[str, str]) -> Read:
    def read(row: Row) -> Prompt | Problem:
        fields = Fields(row.value, columns)
        try:
            refuse_media(fields)
            prompt, had_answer = _asked(READERS[role](fields), fields)
            return Prompt(prompt, row.source, fields.tools(), row.value, had_answer)
        except RowProblem as problem:
            return problem.at(row.source)

    return read


def _asked(prompt: Text | Conversation, fields: Fields) -> tuple[Text | Conversation, bool]:
    """The prompt up to the turn to answer, after the text of a system column, and whether there was an answer. RowProblem for no prompt."""
    system = fields.optional_text("system")
    if isinstance(prompt, str):
        if not prompt.strip():
            raise RowProblem("empty-prompt", "the prompt is empty", fix="give the row a prompt, or remove it")
        return (with_system(user(prompt), system) if system.strip() else prompt), False
    asked = prompt
    while asked and asked[-1].role == "assistant":
        asked = asked[:-1]
    check_prompt(asked)
    return with_system(asked, system), any(turn.content.strip() for turn in prompt[len(asked) :])


def _prompt(fields: Fields) -> Text | Conversation:
    """Text as it stands, the turns of a transcript, or messages."""
    value = fields.required("prompt")
    if isinstance(value, list | tuple | Mapping) or (isinstance(value, str) and messages_as_text(value)):
        return fields.messages("prompt")
    text = fields.text("prompt")
    return parse_transcript(text) if looks_like_transcript(text) else text


READERS: Mapping[str, Callable[[Fields], Text | Conversation]] = {
    "prompt": _prompt,
    "instruction": alpaca_prompt,
    "messages": lambda fields: fields.messages("messages"),
    "conversations": lambda fields: fields.messages("conversations"),
    "question": lambda fields: user(fields.text("question")),
    "query": lambda fields: user(fields.text("query")),
}
"""Columns that hold prompts, and how each is read. Of messages that end with an answer, the turns before it are the prompt."""


class _Seen:
    """Prompts, errors and counts of one pass."""

    def __init__(self, read: Read | None) -> None:
        self._read = read
        self._prompts: list[Prompt] = []
        self._errors: list[Problem] = []
        self._counts: Counter[tuple[str, str]] = Counter()

    def take(self, items: Iterable[Row | Problem], limit: int | None) -> None:
        """Takes items until there are `limit` prompts."""
        for item in items:
            if limit is not None and len(self._prompts) >= limit:
                return
            result = self._read(item) if isinstance(item, Row) and self._read else item
            if isinstance(result, Prompt):
                self._prompts.append(result)
                self._counts["note", "ended with an answer, which was left out"] += result.had_answer
            elif isinstance(result, Problem) and result.severity == "error":
                self._errors.append(result)
            elif isinstance(result, Problem):
                self._counts["warning" if result.severity == "warning" else "dropped", f"{result.kind}: {result.message}"] += 1

    def all_prompts(self, path: str) -> tuple[Prompt, ...]:
        """All prompts. DataError where a row has none, or there is no row."""
        if self._errors:
            raise _data_error(self._errors)
        if not self._prompts:
            raise DataError("there are no prompts", where=path, doing="reading prompts", expected="at least one", fix="check the file")
        return tuple(self._prompts)

    def notes(self) -> tuple[str, ...]:
        """What was dropped or is odd, each kind once, with its number."""
        return tuple(f"{label:<13}{num:,} x {what}" for (label, what), num in self._counts.items() if num)


def _data_error(errors: Sequence[Problem]) -> DataError:
    first, *others = errors[:ERRORS_SHOWN]
    lines = [first.message, *(f"{problem.source or ''}: {problem.message}" for problem in others)]
    lines += [f"... and {len(errors) - len(lines):,} more errors"] * (len(errors) > len(lines))
    doing = f"reading prompts ({len(errors):,} wrong)"
    return DataError("\n".join(lines), where=str(first.source or ""), doing=doing, fix=first.fix)

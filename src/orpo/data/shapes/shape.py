"""A shape of rows: which columns tell it, and how a row becomes a pair, a labelled answer or a ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orpo.core.records import LabelledAnswer, PreferencePair, Ranking, Reads, Record, Source
from orpo.data.row import Problem, Row
from orpo.data.shapes.answers import MEDIA, Warnings, checked_answers, refuse_media
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.kinds import Kind, fits
from orpo.data.shapes.labelled import LabelledDraft, LabelledReader
from orpo.data.shapes.pairs import Draft, Reader, checked
from orpo.data.shapes.problems import RowProblem
from orpo.data.shapes.ranked import RankedReader, best_and_worst, in_order

View = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """One line of the table. `needs` are the columns that are read, `marks` those that only tell the shape and stay metadata,
    `reads` those that are read where they are there, `like` a further look at the values of the first rows.

    One of three reads a row: `read` a pair, `read_labelled` a labelled answer, `read_ranked` a ranking. `columns` is the --columns mapping.
    """

    name: str
    description: str
    needs: Mapping[str, Kind]
    read: Reader | None = None
    read_labelled: LabelledReader | None = None
    read_ranked: RankedReader | None = None
    marks: Mapping[str, Kind] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    like: Callable[[Sequence[View]], bool] | None = None
    is_chat: bool = True
    is_transcript: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_labelled(self) -> bool:
        """True when a row holds one answer with a label: pairs need two rows."""
        return self.read_labelled is not None

    @property
    def holds(self) -> Reads:
        """What a row is."""
        return "labelled" if self.is_labelled else "rankings" if self.read_ranked is not None else "pairs"

    @property
    def roles(self) -> frozenset[str]:
        """The roles that the shape reads."""
        return frozenset({*self.needs, *self.reads, *(("system", "tools") if self.is_chat and not self.is_transcript else ())})

    def to_pairs(self, row: Row) -> list[PreferencePair | Problem]:
        """The pair of a row (of a ranking its best answer and its worst) with its warnings, or the problem that kept it from being one."""
        if self.is_labelled:
            fix = "pair the rows that share a prompt: --pair-labelled"
            return [Problem("labelled-answer", "the row holds one labelled answer, not a pair", row.source, fix=fix)]
        fields = Fields(row.value, self.columns)
        try:
            refuse_media(fields)
            draft = checked(self._draft(fields), fields)
        except RowProblem as problem:
            return [problem.at(row.source)]
        return self._pair(draft, row)

    def to_records(self, row: Row) -> list[Record | Problem]:
        """The row as what it holds (a pair, a labelled answer, a ranking) with its warnings, or the problem that kept it from being one."""
        if self.holds == "pairs":
            return [*self.to_pairs(row)]
        fields = Fields(row.value, self.columns)
        try:
            refuse_media(fields)
            record, warnings = self._answer(row, fields) if self.is_labelled else self._ranking(row, fields)
        except RowProblem as problem:
            return [problem.at(row.source)]
        return [record, *_told(warnings, row)]

    def labelled(self, row: Row) -> LabelledDraft | Problem:
        """The labelled answer of a row; its `group_key` is equal for rows that can be paired."""
        assert self.read_labelled is not None, f"{self.name} holds pairs"
        fields = Fields(row.value, self.columns)
        try:
            refuse_media(fields)
            return self.read_labelled(fields)
        except RowProblem as problem:
            return problem.at(row.source)

    def pair_of(self, good: Row, bad: Row) -> list[PreferencePair | Problem]:
        """The pair of a good and a bad answer to one prompt. Its place and metadata are the good row's, which name the bad row's place."""
        better, worse = self.labelled(good), self.labelled(bad)
        if isinstance(better, Problem):
            return [better]
        if isinstance(worse, Problem):
            return [worse]
        draft = Draft(better.prompt, better.completion, worse.completion, better.tools)
        try:
            draft = checked(draft, Fields(good.value, self.columns))
        except RowProblem as problem:
            return [problem.at(good.source)]
        return self._pair(draft, good, rejected_source=bad.source)

    def _draft(self, fields: Fields) -> Draft:
        if self.read_ranked is not None:
            return best_and_worst(self.read_ranked(fields))
        assert self.read is not None, f"{self.name} has no reader"
        return self.read(fields)

    def _answer(self, row: Row, fields: Fields) -> tuple[LabelledAnswer, Warnings]:
        assert self.read_labelled is not None, f"{self.name} holds no labelled answers"
        draft = self.read_labelled(fields)
        found = checked_answers(draft.prompt, {"the answer": draft.completion}, fields, tools=draft.tools)
        (completion,) = found.completions
        return LabelledAnswer(found.prompt, completion, draft.is_good, row.source, found.tools, self._metadata(row)), found.warnings

    def _ranking(self, row: Row, fields: Fields) -> tuple[Ranking, Warnings]:
        assert self.read_ranked is not None, f"{self.name} holds no rankings"
        draft = in_order(self.read_ranked(fields))
        found = checked_answers(draft.prompt, draft.answers, fields, told=draft.warnings)
        return Ranking(found.prompt, found.completions, row.source, draft.scores, found.tools, self._metadata(row)), found.warnings

    def _metadata(self, row: Row) -> dict[str, Any]:
        return {name: row.value[name] for name in self.extra_columns(row)}

    def _pair(self, draft: Draft, row: Row, *, rejected_source: Source | None = None) -> list[PreferencePair | Problem]:
        metadata = self._metadata(row)
        if rejected_source is not None:
            metadata["rejected_source"] = str(rejected_source)
        pair = PreferencePair(draft.prompt, draft.chosen, draft.rejected, row.source, draft.tools, metadata)
        return [pair, *_told(draft.warnings, row)]

    def extra_columns(self, row: Row) -> list[str]:
        """The columns of the row that the shape does not read: its metadata."""
        hidden = {*self.columns, *self.columns.values()}
        read = {*(self.roles - hidden), *(self.columns[role] for role in self.roles & self.columns.keys()), *MEDIA}
        return [name for name in row.value if name not in read]

    def matches(self, kinds: Mapping[str, Kind], views: Sequence[View], *, empty_fits: bool = False) -> bool:
        """True when columns of these kinds, and the values of the first rows, can be this shape's."""
        for name, need in (*self.needs.items(), *self.marks.items()):
            kind = kinds.get(name)
            if kind is None or not (fits(kind, need) or (empty_fits and kind is Kind.EMPTY)):
                return False
        return self.like is None or self.like(views)

    def refines(self, other: Shape) -> bool:
        """True when this shape says all that `other` says and more: of two that match it is the one that is meant."""
        mine, theirs = {**self.needs, **self.marks}, {**other.needs, **other.marks}
        if not all(name in mine and (fits(mine[name], need) or mine[name] is Kind.ANY) for name, need in theirs.items()):
            return False
        return mine != theirs or (self.like is not None and other.like is None)


def _told(warnings: Warnings, row: Row) -> list[Problem]:
    return [Problem(kind, message, row.source, "warning") for kind, message in warnings]

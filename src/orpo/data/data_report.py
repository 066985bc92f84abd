"""What a check of data found, and the tally it is made from. Problems and token counts enter; a frozen `DataReport` leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orpo.core.records import Reads, Source
from orpo.data.advice import ADVICE
from orpo.data.row import Problem, Severity
from orpo.data.store import TokenStore

NUM_LISTED = 100
"""Problems of one kind whose texts are kept: enough to mend a file by, and bounded, for there are some eighty kinds."""
NUM_PLACES = 3

FILE_KINDS = frozenset(
    {
        "blank-file",
        "csv-delimiter",
        "csv-header",
        "cut-file",
        "damaged-file",
        "empty-file",
        "line-ends",
        "not-rows",
        "unreadable",
        "utf-16",
        "wrong-file-type",
        "zero-bytes",
    }
)
"""Kinds of errors that are about a file: they are no rows, and `max_bad_rows` does not excuse them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A kind of problem with its count, its first places, what was found (of the first one), what it does to training, and what to do."""

    kind: str
    severity: Severity
    num: int
    places: tuple[Source, ...]
    message: str
    effect: str
    fix: str

    def as_dict(self) -> dict[str, Any]:
        """The object that the report has."""
        parts = {name: getattr(self, name) for name in ("kind", "severity", "num", "message", "effect", "fix")}
        return {**parts, "places": [str(place) for place in self.places]}


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was found in all rows. Of each kind the first 100 problems are kept; all are counted, those beyond in `unlisted` by kind.

    Every row has one fate: rows = pairs + the sum of `dropped` + `num_bad_rows` (where labelled answers are paired two rows make a pair).
    `pairs` counts what is kept: pairs, or where the objective reads them labelled answers or rankings; `noun` names one of them. `answers`
    has how many are desirable and not, with the weights that even them out, or how many rankings have how many answers; None for pairs.
    `lengths` compares chosen and rejected, `repeats` counts rows that repeat or contradict others, `max_lengths` says what each limit would
    cost; they are empty where there is nothing to count.
    """

    shape: str
    rows: int
    pairs: int
    errors: tuple[Problem, ...]
    num_errors: int
    num_bad_rows: int
    dropped: Mapping[str, int]
    warnings: Mapping[str, int]
    first_dropped: tuple[Problem, ...]
    first_warnings: tuple[Problem, ...]
    unlisted: Mapping[str, int]
    max_bad_rows: int
    files: tuple[Mapping[str, Any], ...]
    template: str | None = None
    tokens: Mapping[str, Any] | None = None
    reads: Reads = "pairs"
    noun: str = "pair"
    answers: Mapping[str, Any] | None = None
    lengths: Mapping[str, Any] = field(default_factory=dict)
    repeats: Mapping[str, Any] = field(default_factory=dict)
    max_lengths: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when training may start: no error beyond the `max_bad_rows` rows that may be bad."""
        return self.num_errors == self.num_bad_rows <= self.max_bad_rows

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, by kind: rows left out first, then what is odd in those that are kept."""
        parts: tuple[tuple[Severity, Mapping[str, int], tuple[Problem, ...]], ...] = (
            ("dropped", self.dropped, self.first_dropped),
            ("warning", self.warnings, self.first_warnings),
        )
        return tuple(_finding(kind, severity, num, first) for severity, counts, first in parts for kind, num in counts.items())

    def as_dict(self) -> dict[str, Any]:
        """The object that `orpo check --json` prints."""
        return {
            "shape": self.shape,
            "rows": self.rows,
            "pairs": self.pairs,
            "errors": [_as_dict(problem) for problem in self.errors],
            "num_errors": self.num_errors,
            "num_bad_rows": self.num_bad_rows,
            "max_bad_rows": self.max_bad_rows,
            "ok": self.ok,
            "dropped": dict(self.dropped),
            "warnings": dict(self.warnings),
            "first_dropped": [_as_dict(problem) for problem in self.first_dropped],
            "first_warnings": [_as_dict(problem) for problem in self.first_warnings],
            "unlisted": dict(self.unlisted),
            "findings": [finding.as_dict() for finding in self.findings],
            "template": self.template,
            "lengths": dict(self.lengths),
            "repeats": dict(self.repeats),
            "max_lengths": dict(self.max_lengths),
            "tokens": dict(self.tokens) if self.tokens is not None else None,
            "files": [dict(file) for file in self.files],
            **({"reads": self.reads, "answers": dict(self.answers)} if self.answers is not None else {}),
        }


@dataclass
class Tally:
    """Counts that grow while rows go by."""

    rows: int = 0
    num_errors: int = 0
    num_bad_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    listed: dict[Severity, list[Problem]] = field(default_factory=lambda: {"error": [], "dropped": [], "warning": []})
    of_kind: Counter[tuple[Severity, str]] = field(default_factory=Counter)

    def add(self, problem: Problem, *, is_row: bool = True) -> None:
        """Counts a problem. An error that is about a file, or about the data as a whole (`is_row` false), is no bad row."""
        if problem.severity == "error":
            self.num_errors += 1
            self.num_bad_rows += is_row and problem.kind not in FILE_KINDS
        else:
            (self.dropped if problem.severity == "dropped" else self.warnings)[problem.kind] += 1
        of_kind = (problem.severity, problem.kind)
        self.of_kind[of_kind] += 1
        if self.of_kind[of_kind] <= NUM_LISTED:
            self.listed[problem.severity].append(problem)

    def warn(self, kind: str, num: int, message: str) -> None:
        """Counts `num` under a warning that is told once, for the data as a whole; none for 0."""
        if num:
            self.warnings[kind] += num
            self.listed["warning"].append(Problem(kind, message, None, "warning"))

    def warn_of_rows(self, first: Sequence[Problem], num: int) -> None:
        """Counts `num` rows under a warning, of which these are the first."""
        for problem in first:
            self.add(problem)
        if num > len(first):
            self.warnings[first[0].kind] += num - len(first)
            self.of_kind["warning", first[0].kind] += num - len(first)

    def report(self, *, pairs: int, **parts: Any) -> DataReport:
        """The counts as they are now."""
        return DataReport(
            rows=self.rows,
            pairs=pairs,
            errors=tuple(self.listed["error"]),
            num_errors=self.num_errors,
            num_bad_rows=self.num_bad_rows,
            dropped=dict(self.dropped.most_common()),
            warnings=dict(self.warnings.most_common()),
            first_dropped=tuple(self.listed["dropped"]),
            first_warnings=tuple(self.listed["warning"]),
            unlisted=self._unlisted(),
            **parts,
        )

    def _unlisted(self) -> dict[str, int]:
        beyond: Counter[str] = Counter()
        for (_, kind), num in self.of_kind.items():
            beyond[kind] += max(num - NUM_LISTED, 0)
        return {kind: num for kind, num in beyond.most_common() if num}


def token_statistics(store: TokenStore, notes: Mapping[str, int]) -> dict[str, Any]:
    """Lengths of prompts and answers, of pairs how often the chosen one is longer, and what was cut or moved. Empty for no examples.

    Answers go by 'chosen' and 'rejected'; with labels by 'desirable' and 'undesirable', with scores by 'best' and 'others'.
    """
    lengths = store.lengths
    if not len(lengths.prompt):
        return {}
    answers = _answers(store)
    longer = {"chosen_longer_share": round(float(np.mean(lengths.chosen > lengths.rejected)), 4)} if "chosen" in answers else {}
    counts = {name.replace("-", "_"): notes.get(name, 0) for name in ("rows-cut", "answers-cut", "tokens-cut", "boundary-merged")}
    return {
        **{name: _figures(part) for name, part in {"prompt": lengths.prompt, **answers}.items()},
        "total": int(lengths.prompt.sum() + lengths.completions.sum()),
        "longest_row": int((lengths.prompt + lengths.longest).max()),
        **longer,
        **counts,
    }


def _answers(store: TokenStore) -> dict[str, NDArray[np.int64]]:
    """Token counts of the answers by the part they play; a part that no answer plays is left out."""
    lengths, labels = store.lengths, store.labels
    if len(labels):
        parts = {"desirable": lengths.completions[labels], "undesirable": lengths.completions[~labels]}
    elif len(store.scores):
        is_other = np.ones(len(lengths.completions), dtype=bool)
        is_other[lengths.first[:-1]] = False
        parts = {"best": lengths.chosen, "others": lengths.completions[is_other]}
    else:
        return {"chosen": lengths.chosen, "rejected": lengths.rejected}
    return {name: part for name, part in parts.items() if len(part)}


def _figures(numbers: NDArray[np.int64]) -> dict[str, int | float]:
    return {
        "min": int(numbers.min()),
        "median": float(np.median(numbers)),
        "p95": int(np.percentile(numbers, 95, method="nearest")),
        "max": int(numbers.max()),
        "total": int(numbers.sum()),
    }


def _finding(kind: str, severity: Severity, num: int, first: Sequence[Problem]) -> Finding:
    found = [problem for problem in first if problem.kind == kind]
    advice = ADVICE[severity][kind]
    places = tuple(dict.fromkeys(problem.source for problem in found if problem.source))[:NUM_PLACES]
    return Finding(kind, severity, num, places, found[0].message if found else "", advice.effect, advice.fix)


def _as_dict(problem: Problem) -> dict[str, Any]:
    file, line = (problem.source.file, problem.source.number) if problem.source else (None, None)
    return {"file": file, "line": line, "kind": problem.kind, "message": problem.message, "fix": problem.fix}

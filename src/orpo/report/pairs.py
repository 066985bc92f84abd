"""The held-out pairs one by one: a run enters, pairs with their margins before and after training leave; and groups of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orpo.report import facts
from orpo.report.numbers import as_number, count
from orpo.runs.summary import RunData


@dataclass(frozen=True, slots=True)
class HeldOutPair:
    """One held-out pair: its file, the tokens of its answers, and by how much the chosen one led at the start and at the end."""

    file: str
    chosen_tokens: float
    rejected_tokens: float
    start: float | None
    end: float | None

    @property
    def longer(self) -> float:
        """Tokens of the longer answer."""
        return max(self.chosen_tokens, self.rejected_tokens)


Group = tuple[str, list[HeldOutPair]]
"""A name and the pairs that go by it."""


def held_out_pairs(run: RunData) -> list[HeldOutPair]:
    """The pairs of held_out.jsonl, those without lengths or margins left out; none where the file is not there."""
    made = (_pair(row) for row in run.held_out or ())
    return [pair for pair in made if pair is not None]


def _pair(row: Mapping[str, Any]) -> HeldOutPair | None:
    chosen, rejected = as_number(row.get("chosen_tokens")), as_number(row.get("rejected_tokens"))
    start, end = _margin(row.get("before")), _margin(row.get("after"))
    if chosen is None or rejected is None or (start is None and end is None):
        return None
    return HeldOutPair(str(row.get("source", "")).rpartition(":")[0], chosen, rejected, start, end)


def _margin(values: Any) -> float | None:
    chosen, rejected = (as_number(facts.mapping(values).get(name)) for name in ("chosen", "rejected"))
    return None if chosen is None or rejected is None else chosen - rejected


def by_file(pairs: Sequence[HeldOutPair]) -> list[Group]:
    """The pairs of each file, the largest first."""
    return sorted(_grouped(pairs, lambda pair: pair.file), key=lambda group: -len(group[1]))


def by_length(pairs: Sequence[HeldOutPair]) -> list[Group]:
    """The pairs in thirds by the tokens of their longer answer; pairs of one length stay together, so that a third may be missing."""
    lengths = sorted(pair.longer for pair in pairs)
    if not lengths:
        return []
    first, second = lengths[len(lengths) // 3], lengths[2 * len(lengths) // 3]
    parts = [
        (f"up to {count(first)} tokens", [pair for pair in pairs if pair.longer <= first]),
        (f"{count(first + 1)} to {count(second)} tokens", [pair for pair in pairs if first < pair.longer <= second]),
        (f"{count(second + 1)} to {count(lengths[-1])} tokens", [pair for pair in pairs if pair.longer > second]),
    ]
    return [(name, members) for name, members in parts if members]


def by_longer_answer(pairs: Sequence[HeldOutPair]) -> list[Group]:
    """The pairs by which of their answers is the longer one: a model that only learned lengths tells one kind apart and not the other."""
    names = {1: "the chosen answer is longer", -1: "the rejected answer is longer", 0: "both are as long"}
    signs = {name: sign for sign, name in names.items()}
    groups = _grouped(pairs, lambda pair: names[_sign(pair.chosen_tokens - pair.rejected_tokens)])
    return sorted(groups, key=lambda group: -signs[group[0]])


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _grouped(pairs: Sequence[HeldOutPair], name_of: Callable[[HeldOutPair], str]) -> list[Group]:
    groups: dict[str, list[HeldOutPair]] = {}
    for pair in pairs:
        groups.setdefault(name_of(pair), []).append(pair)
    return list(groups.items())

"""A row as a model sees it, ready to be drawn: an example enters; its parts leave, in pieces that say where each piece comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from orpo.core.records import Conversation, Source, Text
from orpo.core.tokens import TokenizedExample
from orpo.data.control_text import ControlText
from orpo.data.example import Example
from orpo.data.limits import Overlong, apply_limit
from orpo.data.own_text import Ranges, own_ranges
from orpo.data.row import Problem
from orpo.data.templates import Template
from orpo.data.tokenize import BOUNDARY_MERGED, SPECIAL_TOKEN_TEXT, ExampleTokenizer, Split

Origin = Literal["own", "template", "control"]
"""The row's own text; text of the template; a control token, which the template or the tokenizer put there."""

_NOTES = {
    SPECIAL_TOKEN_TEXT: "the row's own text holds that of a control token: it is encoded as plain text and controls nothing",
    BOUNDARY_MERGED: "a token spans the end of the prompt: it belongs to the answers",
}
_TEMPLATE_UNKNOWN = "the template changes the turns, so its text is not told from theirs here"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some text of one origin; `is_cut` where it lies beyond max_length."""

    text: str
    origin: Origin
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class PartView:
    """The prompt or one answer: `part` is what an objective calls it, `name` what a person does. Counts are None without a tokenizer."""

    part: str
    name: str
    stretches: tuple[Stretch, ...]
    num_tokens: int | None = None
    num_own: int | None = None
    num_cut: int = 0


@dataclass(frozen=True, slots=True)
class RowView:
    """A row with its place. `fate` says why it is left out, '' where it is kept."""

    source: Source
    parts: tuple[PartView, ...]
    fate: str = ""
    notes: tuple[str, ...] = ()
    max_length: int | None = None


class RowViewer:
    """Makes views of rows with one tokenizer, template and limit. A tokenizer None shows text alone."""

    def __init__(self, tokenizer: Any, template: Template | None, *, max_length: int | None, overlong: Overlong) -> None:
        self._tokenizer, self._max_length, self._overlong = tokenizer, max_length, overlong
        self._examples = None if tokenizer is None or template is None else ExampleTokenizer(tokenizer, template)
        self._control = frozenset() if tokenizer is None else frozenset(ControlText(tokenizer).ids.values())

    def view(self, example: Example) -> RowView:
        """The row; as text alone where it cannot be tokenized, with the reason."""
        if self._examples is None:
            return text_view(example)
        split = self._examples.split(example)
        if isinstance(split, Problem):
            return text_view(example, fate=f"{split.kind}: {split.message}")
        result = self._examples.example(example, split)
        if isinstance(result, TokenizedExample) and self._max_length is not None:
            result = apply_limit(result, self._max_length, self._overlong)
        ranges = own_ranges(self._examples.renderer, example, split.rendered)
        notes = [_NOTES[note] for note in split.notes if note in _NOTES] + [_TEMPLATE_UNKNOWN] * (ranges is None)
        fate = f"{result.kind}: {result.message}" if isinstance(result, Problem) else ""
        return RowView(example.source, self._parts(example, split, ranges), fate, tuple(notes), self._max_length)

    def _parts(self, example: Example, split: Split, ranges: tuple[Ranges, ...] | None) -> tuple[PartView, ...]:
        """The prompt, seen in front of the first answer, and each answer."""
        names = (("prompt", "prompt"), *part_names(example))
        num_prompt = len(split.prompt)
        views = []
        for place, (part, name) in enumerate(names):
            answer = max(place - 1, 0)
            ids = [*split.prompt, *split.completions[answer]]
            is_own = self._is_own(split, answer, ids, ranges)
            views.append(self._part(part, name, ids, is_own, range(num_prompt) if place == 0 else range(num_prompt, len(ids))))
        return tuple(views)

    def _is_own(self, split: Split, answer: int, ids: Sequence[int], ranges: tuple[Ranges, ...] | None) -> list[bool]:
        """For each id of a full row whether it is the row's own text; where the ranges are unknown, all but control tokens are."""
        assert self._examples is not None, "no tokenizer"
        if ranges is None:
            return [number not in self._control for number in ids]
        pieces, is_own = split.rendered.full[answer], [False] * len(ids)
        whole = sum(len(text) for text, _ in pieces)
        for start, end in ranges[answer]:
            first = self._examples.num_tokens_up_to(start, pieces, ids)
            # At the end of the text there may be an end-of-sequence token behind it, and nothing else.
            last = self._examples.num_tokens_up_to(end, pieces, ids) if end < whole or ids[-1] in self._control else len(ids)
            is_own[first:last] = [True] * (last - first)
        return [own and number not in self._control for own, number in zip(is_own, ids, strict=True)]

    def _part(self, part: str, name: str, ids: Sequence[int], is_own: Sequence[bool], span: range) -> PartView:
        """The ids of `span` as text, in stretches of one origin. Each stretch is what decoding adds to all that is before it."""
        limit = len(ids) if self._max_length is None else self._max_length

        def kind(place: int) -> tuple[Origin, bool]:
            return "control" if ids[place] in self._control else "own" if is_own[place] else "template", place >= limit

        stretches = []
        for (origin, is_cut), run in groupby(span, key=kind):
            places = list(run)
            if origin == "control":
                stretches += [Stretch(str(self._tokenizer.convert_ids_to_tokens(int(ids[place]))), origin, is_cut) for place in places]
            else:
                stretches.append(Stretch(self._added(ids, places[0], places[-1] + 1), origin, is_cut))
        num_cut = len(range(max(span.start, limit), span.stop))
        return PartView(part, name, tuple(stretches), len(span), sum(is_own[place] for place in span), num_cut)

    def _added(self, ids: Sequence[int], start: int, end: int) -> str:
        """What the ids from `start` to `end` add to the text of those before: decoded alone, a first word would lose its space."""
        before, whole = (self._tokenizer.decode(list(ids[:stop]), clean_up_tokenization_spaces=False) for stop in (start, end))
        # A character that begins in one token and ends in the next is shown with the next.
        return str(whole[len(before.rstrip("\ufffd")) :])


def text_view(example: Example, *, fate: str = "") -> RowView:
    """The row as text alone; of messages, the names of the speakers are no text of the row's."""
    names = (("prompt", "prompt"), *part_names(example))
    parts = zip(names, (example.prompt, *example.completions), strict=True)
    return RowView(example.source, tuple(PartView(part, name, _speakers(text)) for (part, name), text in parts), fate)


def part_names(example: Example) -> list[tuple[str, str]]:
    """The part that each answer plays, and its name."""
    if example.labels:
        return [("desirable", "desirable") if label else ("undesirable", "undesirable") for label in example.labels]
    num = len(example.completions)
    if num <= 2 and not example.scores:
        return [("chosen", "chosen"), ("rejected", "rejected")][:num]
    names = [f"answer {place} of {num}" for place in range(1, num + 1)]
    names = [f"{name}, score {score:g}" for name, score in zip(names, example.scores, strict=True)] if example.scores else names
    return list(zip(["best", *["between"] * (num - 2), "last"], names, strict=True))


def _speakers(part: Text | Conversation) -> tuple[Stretch, ...]:
    if isinstance(part, str):
        return (Stretch(part, "own"),)
    ends = ["\n"] * (len(part) - 1) + [""]
    turns = (
        (Stretch(f"{turn.role}: ", "template"), Stretch(turn.content, "own"), Stretch(end, "template"))
        for turn, end in zip(part, ends, strict=True)
    )
    return tuple(stretch for turn in turns for stretch in turn if stretch.text)

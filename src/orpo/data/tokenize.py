"""Examples as token ids: an example, a tokenizer and a template enter, a `TokenizedExample` leaves, or the reason why there is none.

The prompt is split off once. Prompt ids followed by completion ids are what the tokenizer gives for the full text; where a token
spans the boundary, the boundary moves back before it, so that a completion always holds its whole answer. With messages, every turn of a
completion is trained, tool turns included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from orpo.core.records import Record
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.data.control_text import ControlText, Piece, PlainEncoder
from orpo.data.example import Example, as_example
from orpo.data.rendering import Rendered, Renderer
from orpo.data.repeats import without_repeats
from orpo.data.row import Problem
from orpo.data.templates import Template

BATCH_EXAMPLES = 256
SPECIAL_TOKEN_TEXT = "special-token-text"
BOUNDARY_MERGED = "boundary-merged"
JOINED_WORDS = "joined-words"
IDENTICAL_TOKENS = "identical-tokens"


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What became of an example, and what is worth counting about it: slugs such as SPECIAL_TOKEN_TEXT, each as often as it was seen."""

    result: TokenizedExample | Problem
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """The ids of a row: its prompt, and what each full text has behind it. `notes` are those of `Tokenized`."""

    rendered: Rendered
    prompt: list[int]
    completions: tuple[list[int], ...]
    notes: tuple[str, ...]


def tokenize_record(record: Record, tokenizer: Any, template: Template) -> TokenizedExample | Problem:
    """The record as ids, or the reason why it has none. For many records an `ExampleTokenizer` is several times faster."""
    return next(ExampleTokenizer(tokenizer, template).stream([as_example(record)])).result


class ExampleTokenizer:
    """Tokenizes examples in batches with one tokenizer and one template. Not to be shared between threads."""

    def __init__(self, tokenizer: Any, template: Template) -> None:
        control = ControlText(tokenizer)
        self._encoder = PlainEncoder(tokenizer, control)
        self.renderer = Renderer(tokenizer, template, control)
        self._bos = _added_in_front(tokenizer) if template.is_raw else []
        self._eos = int(tokenizer.eos_token_id)

    def stream(self, examples: Iterable[Example]) -> Iterator[Tokenized]:
        """What became of each example, in order."""
        examples = iter(examples)
        while batch := list(islice(examples, BATCH_EXAMPLES)):
            yield from self.batch(batch)

    def batch(self, examples: Sequence[Example]) -> list[Tokenized]:
        """What became of each of a few hundred examples."""
        with self.renderer.budget() as budget:
            rendered = [self.renderer.rendered(example, budget) for example in examples]
        encoded = iter(self._encoder.batch([text for item in rendered for text in _whole_texts(item)]))
        return [self._tokenized(example, item, encoded) for example, item in zip(examples, rendered, strict=True)]

    def split(self, example: Example) -> Split | Problem:
        """The ids of one example as they are before anything is left out or cut, or the reason why it has none."""
        with self.renderer.budget() as budget:
            rendered = self.renderer.rendered(example, budget)
        return self._split(example, rendered, iter(self._encoder.batch(_whole_texts(rendered))))

    def num_tokens_up_to(self, end: int, pieces: Sequence[Piece], ids: Sequence[int]) -> int:
        """How many of `ids`, which are those of `pieces`, lie whole before character `end`."""
        before = pieces_up_to(end, pieces)
        is_typed = any(is_typed for _, is_typed in pieces)
        found = self._encoder.pieces(before) if is_typed else self._encoder.batch(["".join(text for text, _ in before)])[0]
        return _shared(self._bos + found, list(ids))

    def prompts(self, examples: Sequence[Example]) -> list[TokenIds | Problem]:
        """Ids that a reply to each example's prompt follows (completions are not looked at), or the reason why there are none."""
        with self.renderer.budget() as budget:
            rendered = [self.renderer.rendered(replace(example, completions=()), budget) for example in examples]
        encoded = iter(self._encoder.batch([text for item in rendered for text in _whole_texts(item)]))
        return [self._prompt(example, item, encoded) for example, item in zip(examples, rendered, strict=True)]

    def _prompt(self, example: Example, rendered: Rendered | Problem, encoded: Iterator[list[int]]) -> TokenIds | Problem:
        if isinstance(rendered, Problem):
            return rendered
        try:
            (ids,) = self._ids(rendered, encoded)
        except ValueError as error:
            return _untypable(example, error)
        return _array(ids) if ids else _without_token(example)

    def _split(self, example: Example, rendered: Rendered | Problem, encoded: Iterator[list[int]]) -> Split | Problem:
        if isinstance(rendered, Problem):
            return rendered
        try:
            prompt, *full = self._ids(rendered, encoded)
        except ValueError as error:
            return _untypable(example, error)
        full = [ids if ends else [*ids, self._eos] for ids, ends in zip(full, rendered.ends_turn, strict=True)]
        boundary = min(_shared(prompt, ids) for ids in full)
        notes = {SPECIAL_TOKEN_TEXT: rendered.has_typed_control, BOUNDARY_MERGED: boundary < len(prompt), JOINED_WORDS: rendered.is_joined}
        told = tuple(note for note, is_so in notes.items() if is_so)
        return Split(rendered, prompt[:boundary], tuple(ids[boundary:] for ids in full), told)

    def _tokenized(self, example: Example, rendered: Rendered | Problem, encoded: Iterator[list[int]]) -> Tokenized:
        split = self._split(example, rendered, encoded)
        if isinstance(split, Problem):
            return Tokenized(split)
        result = self.example(example, split)
        num_same = len(split.completions) - len(result.completions) if isinstance(result, TokenizedExample) else 0
        return Tokenized(result, (*split.notes, *[IDENTICAL_TOKENS] * num_same))

    def _ids(self, rendered: Rendered, encoded: Iterator[list[int]]) -> list[list[int]]:
        """Ids of the prompt and of each full text, with BOS where the tokenizer adds it."""
        if rendered.has_typed_control:
            return [self._bos + self._encoder.pieces(pieces) for pieces in (rendered.prompt, *rendered.full)]
        return [self._bos + next(encoded) for _ in (rendered.prompt, *rendered.full)]

    def example(self, example: Example, split: Split) -> TokenizedExample | Problem:
        """The example with these ids, each completion once; a Problem where it cannot be trained on."""
        prompt, completions = split.prompt, split.completions
        if not prompt:
            return _without_token(example)
        if min(map(len, completions)) == 0 or [self._eos] in completions:
            return Problem("empty-answer", "an answer has no tokens", example.source, "dropped")
        arrays = tuple(map(_array, completions))
        result = without_repeats(TokenizedExample(_array(prompt), arrays, example.source, example.labels, example.scores))
        if len(result.completions) == 1 < len(completions):
            named = "the answers" if example.scores else "chosen and rejected"
            return Problem(IDENTICAL_TOKENS, f"{named} are the same once the template is applied", example.source, "dropped")
        return result


def _whole_texts(rendered: Rendered | Problem) -> list[str]:
    """The texts of a row, prompt first, that can be encoded as they are; none where control tokens were typed, or there is no text."""
    if isinstance(rendered, Problem) or rendered.has_typed_control:
        return []
    return ["".join(text for text, _ in pieces) for pieces in (rendered.prompt, *rendered.full)]


def pieces_up_to(end: int, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces up to character `end`, the last one cut there."""
    kept: list[Piece] = []
    for text, is_typed in pieces:
        if end <= 0:
            break
        kept.append((text[:end], is_typed))
        end -= len(text)
    return kept


def _added_in_front(tokenizer: Any) -> list[int]:
    """Ids the tokenizer puts before any text, such as BOS. What it puts behind is left out: an answer gets its EOS here."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    return next(whole[:start] for start in range(len(whole) + 1) if whole[start : start + len(plain)] == plain)


def _shared(first: list[int], second: list[int]) -> int:
    """How many ids both begin with."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(index for index in range(length) if first[index] != second[index])


def _untypable(example: Example, error: ValueError) -> Problem:
    return Problem("untypable-control-token", str(error), example.source, fix="take the control token out of the text")


def _without_token(example: Example) -> Problem:
    return Problem(
        "prompt-without-token",
        "the prompt has no token of its own in front of the answers, and this tokenizer adds none",
        example.source,
        "dropped",
        "give the row a prompt, or use a chat template: --template chatml",
    )


def _array(ids: list[int]) -> TokenIds:
    return np.array(ids, dtype=np.int32)

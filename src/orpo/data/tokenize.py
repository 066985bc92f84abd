"""Pairs as token ids: a pair, a tokenizer and a template enter, a `TokenizedExample` leaves, or the reason why there is none.

The prompt is split off once. Prompt ids followed by completion ids are what the tokenizer gives for the full text; where a token
spans the boundary, the boundary moves back before it, so that a completion always holds its whole answer. With messages, every turn of a
completion is trained, tool turns included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from orpo.core.records import PreferencePair
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.data.control_text import ControlText, PlainEncoder
from orpo.data.rendering import RenderedPair, Renderer
from orpo.data.row import Problem
from orpo.data.templates import Template

BATCH_PAIRS = 256
SPECIAL_TOKEN_TEXT = "special-token-text"
BOUNDARY_MERGED = "boundary-merged"
JOINED_WORDS = "joined-words"


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What became of a pair, and what is worth counting about it: slugs such as SPECIAL_TOKEN_TEXT."""

    result: TokenizedExample | Problem
    notes: tuple[str, ...] = ()


def tokenize_pair(pair: PreferencePair, tokenizer: Any, template: Template) -> TokenizedExample | Problem:
    """The pair as ids, or the reason why it has none. For many pairs a `PairTokenizer` is several times faster."""
    return next(PairTokenizer(tokenizer, template).stream([pair])).result


class PairTokenizer:
    """Tokenizes pairs in batches with one tokenizer and one template. Not to be shared between threads."""

    def __init__(self, tokenizer: Any, template: Template) -> None:
        control = ControlText(tokenizer)
        self._encoder = PlainEncoder(tokenizer, control)
        self._renderer = Renderer(tokenizer, template, control)
        self._bos = _added_in_front(tokenizer) if template.is_raw else []
        self._eos = int(tokenizer.eos_token_id)

    def stream(self, pairs: Iterable[PreferencePair]) -> Iterator[Tokenized]:
        """What became of each pair, in order."""
        pairs = iter(pairs)
        while batch := list(islice(pairs, BATCH_PAIRS)):
            yield from self.batch(batch)

    def batch(self, pairs: Sequence[PreferencePair]) -> list[Tokenized]:
        """What became of each of a few hundred pairs."""
        with self._renderer.budget() as budget:
            rendered = [self._renderer.rendered(pair, budget) for pair in pairs]
        encoded = iter(self._encoder.batch([text for item in rendered for text in _whole_texts(item)]))
        return [self._tokenized(pair, item, encoded) for pair, item in zip(pairs, rendered, strict=True)]

    def _tokenized(self, pair: PreferencePair, rendered: RenderedPair | Problem, encoded: Iterator[list[int]]) -> Tokenized:
        if isinstance(rendered, Problem):
            return Tokenized(rendered)
        notes = [SPECIAL_TOKEN_TEXT] if rendered.has_typed_control else []
        try:
            prompt, *full = self._ids(rendered, encoded)
        except ValueError as error:
            return Tokenized(Problem("untypable-control-token", str(error), pair.source, fix="take the control token out of the text"))
        full = [ids if ends else [*ids, self._eos] for ids, ends in zip(full, rendered.ends_turn, strict=True)]
        boundary = min(_shared(prompt, ids) for ids in full)
        if boundary < len(prompt):
            notes.append(BOUNDARY_MERGED)
        if rendered.is_joined:
            notes.append(JOINED_WORDS)
        return Tokenized(self._example(pair, prompt[:boundary], [ids[boundary:] for ids in full]), tuple(notes))

    def _ids(self, rendered: RenderedPair, encoded: Iterator[list[int]]) -> list[list[int]]:
        """Ids of the prompt and of both full texts, with BOS where the tokenizer adds it."""
        if rendered.has_typed_control:
            return [self._bos + self._encoder.pieces(pieces) for pieces in (rendered.prompt, *rendered.full)]
        return [self._bos + next(encoded) for _ in range(3)]

    def _example(self, pair: PreferencePair, prompt: list[int], completions: list[list[int]]) -> TokenizedExample | Problem:
        if not prompt:
            return Problem(
                "prompt-without-token",
                "the prompt has no token of its own in front of the answers, and this tokenizer adds none",
                pair.source,
                "dropped",
                "give the row a prompt, or use a chat template: --template chatml",
            )
        if min(map(len, completions)) == 0 or [self._eos] in completions:
            return Problem("empty-answer", "an answer has no tokens", pair.source, "dropped")
        if completions[0] == completions[1]:
            return Problem("identical-tokens", "chosen and rejected are the same once the template is applied", pair.source, "dropped")
        return TokenizedExample(_array(prompt), tuple(map(_array, completions)), pair.source)


def _whole_texts(rendered: RenderedPair | Problem) -> list[str]:
    """The three texts of a row that can be encoded as they are; none where control tokens were typed, or there is no text."""
    if isinstance(rendered, Problem) or rendered.has_typed_control:
        return []
    return ["".join(text for text, _ in pieces) for pieces in (rendered.prompt, *rendered.full)]


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


def _array(ids: list[int]) -> TokenIds:
    return np.array(ids, dtype=np.int32)

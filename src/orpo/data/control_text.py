"""Control tokens typed inside data. A tokenizer and the strings of a row enter; encodings in which typed text stays text leave."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

PRIVATE_USE = (*range(0xE000, 0xF900), *range(0xF0000, 0xF0400))
_CONTROL_FORM = re.compile(r"<[|｜].+[|｜]>", re.S)
_ANCHORS = ("\n", "a", ".", "0")

Piece = tuple[str, bool]
"""Text, and whether it was typed as a control token inside data."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Two characters that a row does not contain; they surround control tokens typed in it while a template renders."""

    opening: str
    closing: str

    def pieces(self, text: str) -> tuple[Piece, ...]:
        """`text` cut at the marks. A lone mark (a template split the string there) vanishes but still cuts."""
        # tojson(ensure_ascii=true) turns a mark into its escape.
        for mark in (self.opening, self.closing):
            text = text.replace(escape(mark), mark)
        typed = f"{self.opening}([^{self.opening}{self.closing}]*){self.closing}"
        parts = re.split(f"{typed}|[{self.opening}{self.closing}]", text)
        return tuple((part, index % 2 == 1) for index, part in enumerate(parts) if part)


def escape(character: str) -> str:
    """The JSON escape of one character, such as \\ue000."""
    return "".join(f"\\u{unit:04x}" for unit in memoryview(character.encode("utf-16-le")).cast("H"))


class ControlText:
    """The control tokens of a tokenizer: its special tokens, and added ones written <|like this|>.

    Added tokens that are ordinary vocabulary, such as <think>, are no control tokens: data may use them.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {})
        ids = {token.content: number for number, token in added.items() if token.special or _CONTROL_FORM.fullmatch(token.content)}
        ids.update(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self.ids: Mapping[str, int] = {text: number for text, number in ids.items() if text.strip()}
        longest_first = sorted(self.ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._endings = tuple(longest_first)

    def found_in(self, value: Any) -> bool:
        """Whether any string inside `value` (a string, or nested lists and mappings) contains a control token."""
        if isinstance(value, str):
            return self._pattern.search(value) is not None
        if isinstance(value, Mapping):
            return any(self.found_in(key) or self.found_in(item) for key, item in value.items())
        return isinstance(value, list | tuple) and any(self.found_in(item) for item in value)

    def marked(self, value: Any, marks: Marks) -> Any:
        """`value` with every control token in its strings surrounded by marks."""
        if isinstance(value, str):
            return self._pattern.sub(lambda match: marks.opening + match[0] + marks.closing, value)
        if isinstance(value, Mapping):
            return {self.marked(key, marks): self.marked(item, marks) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.marked(item, marks) for item in value]
        return value

    def pieces(self, text: str) -> tuple[Piece, ...]:
        """`text`, all of it data, cut around the control tokens in it."""
        parts = re.split(f"({self._pattern.pattern})", text)
        return tuple((part, index % 2 == 1) for index, part in enumerate(parts) if part)

    def without_control(self, text: str) -> str:
        """`text` with its control tokens taken out."""
        return self._pattern.sub("", text)

    def ends(self, text: str) -> bool:
        """Whether `text` ends with a control token."""
        return text.endswith(self._endings)


def unused_marks(value: Any) -> Marks:
    """Marks that occur in no string of `value`, nor does their escape."""
    text = all_strings(value)
    free = list(islice((c for c in map(chr, PRIVATE_USE) if c not in text and escape(c) not in text), 2))
    if len(free) < 2:
        raise ValueError("the row uses every private-use character, so control tokens typed in it cannot be told apart")
    return Marks(*free)


def all_strings(value: Any) -> str:
    """All strings inside `value`, joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(all_strings(part) for item in value.items() for part in item)
    return "\n".join(all_strings(item) for item in value) if isinstance(value, list | tuple) else ""


class PlainEncoder:
    """Token ids of text, with or without control tokens. `tokenizer` is a transformers tokenizer, fast or not."""

    def __init__(self, tokenizer: Any, control: ControlText) -> None:
        self._tokenizer = tokenizer
        self._control_ids = frozenset(control.ids.values()) - {tokenizer.unk_token_id}
        self._backend = getattr(tokenizer, "backend_tokenizer", None)

    def batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as the tokenizer gives them without its own BOS or EOS; control tokens are read as such."""
        if self._backend is None:
            return [list(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
        # The backend directly: transformers makes a Python object per token. Its settings are those of the tokenizer's last call.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = False
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """Ids of the pieces one after another; typed control tokens become the ids of their plain text."""
        ids: list[int] = []
        for text, is_typed in pieces:
            ids += self._typed(text, is_first=not ids) if is_typed else self._middle(text, is_first=not ids, as_text=False)
        return ids

    def _typed(self, text: str, *, is_first: bool) -> list[int]:
        ids = self._middle(text, is_first=is_first, as_text=True)
        if self._control_ids.isdisjoint(ids):
            return ids
        if len(text) == 1:
            raise ValueError(f"the tokenizer has no plain text for {text!r}")
        # An added token that is not flagged special is found even so: cut it in two.
        half = len(text) // 2
        return self._typed(text[:half], is_first=is_first) + self._typed(text[half:], is_first=False)

    def _middle(self, text: str, *, is_first: bool, as_text: bool) -> list[int]:
        """Ids of a piece. Sentencepiece puts a space before the first word, so a piece from the middle is encoded behind an anchor."""
        if is_first:
            return self._encode(text, as_text=as_text)
        for anchor in _ANCHORS:
            before, ids = self._encode(anchor, as_text=as_text), self._encode(anchor + text, as_text=as_text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._encode(text, as_text=as_text)

    def _encode(self, text: str, *, as_text: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=as_text))

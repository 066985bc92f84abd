"""One tokenized example for a person to read: ids and a tokenizer enter, a coloured text leaves."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.text import Text

from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.data.control_text import ControlText

_KEPT = {"\n", "\t"}


def preview(example: TokenizedExample, tokenizer: Any, *, learned: Mapping[str, str] | None = None) -> Text:
    """The example as the model sees it: the prompt grey, the chosen answer green, the rejected one red, control tokens reversed.

    Desirable answers and the best of a ranking are green, undesirable ones and the last of a ranking red. `learned` says per part
    ('prompt', 'chosen', 'rejected', 'desirable', 'undesirable', 'ranked') what the objective does with its tokens. Control and
    bidirectional characters of the data are shown as escapes, so that they can change neither the terminal nor the order of what is read.
    """
    learned = learned or {"prompt": "carries no loss"}
    control = frozenset(ControlText(tokenizer).ids.values())
    text = Text()
    text.append(f"{example.source}\n", style="bold")
    parts = (("prompt", "prompt", "grey50"), *_parts(example))
    for (part, name, style), ids in zip(parts, (example.prompt_ids, *example.completions), strict=True):
        said = learned.get(part, "carries loss")
        text.append(f"{name}, {len(ids):,} tokens, {said}\n", style=f"bold {style}")
        text.append_text(_readable(ids, tokenizer, control, style=style))
        text.append("\n")
    return text


def _parts(example: TokenizedExample) -> list[tuple[str, str, str]]:
    """The part, the name and the colour of each completion."""
    if example.labels:
        return [("desirable", "desirable", "green") if label else ("undesirable", "undesirable", "red") for label in example.labels]
    num = len(example.completions)
    if num <= 2 and not example.scores:
        return [("chosen", "chosen", "green"), ("rejected", "rejected", "red")][:num]
    names = [f"answer {place} of {num}" for place in range(1, num + 1)]
    names = [f"{name}, score {score:g}" for name, score in zip(names, example.scores, strict=True)] if example.scores else names
    return [("ranked", name, style) for name, style in zip(names, ["green", *["default"] * (num - 2), "red"], strict=True)]


def visible(text: str) -> str:
    """`text` with control, bidirectional and other invisible characters as escapes; line breaks and tabs stay."""
    return "".join(character if character in _KEPT or not _is_hidden(character) else _escape(character) for character in text)


def _is_hidden(character: str) -> bool:
    # Cc controls, Cf formats (bidirectional marks, zero-width joiners), Cs lone surrogates, Co private use, Zl/Zp line separators
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _readable(ids: TokenIds, tokenizer: Any, control: frozenset[int], *, style: str) -> Text:
    """Decoded ids. Tokens that are control stand out from the same text typed in data."""
    text = Text()
    for is_control, run in groupby(ids.tolist(), key=control.__contains__):
        numbers = list(run)
        if is_control:
            for number in numbers:
                text.append(visible(str(tokenizer.convert_ids_to_tokens(number))), style=f"{style} reverse")
        else:
            text.append(visible(str(tokenizer.decode(numbers, clean_up_tokenization_spaces=False))), style=style)
    return text

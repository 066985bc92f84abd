"""One tokenized example for a person to read: ids and a tokenizer enter, a coloured text leaves."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.text import Text

from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.data.control_text import ControlText

_STYLES = {"prompt": "grey50", "chosen": "green", "rejected": "red"}
_KEPT = {"\n", "\t"}
_NAMES = ("chosen", "rejected")


def preview(example: TokenizedExample, tokenizer: Any, *, learned: Mapping[str, str] | None = None) -> Text:
    """The example as the model sees it: the prompt grey, the chosen answer green, the rejected one red, control tokens reversed.

    `learned` says per part ('prompt', 'chosen', 'rejected') what the objective does with its tokens. Control and bidirectional
    characters of the data are shown as escapes, so that they can change neither the terminal nor the order of what is read.
    """
    learned = learned or {"prompt": "carries no loss", "chosen": "carries loss", "rejected": "carries loss"}
    control = frozenset(ControlText(tokenizer).ids.values())
    text = Text()
    text.append(f"{example.source}\n", style="bold")
    parts = [("prompt", example.prompt_ids), *zip(_NAMES, example.completions, strict=False)]
    parts += [(f"completion {number + 1}", ids) for number, ids in enumerate(example.completions) if number >= len(_NAMES)]
    for name, ids in parts:
        said = learned.get(name, "carries loss")
        text.append(f"{name}, {len(ids):,} tokens, {said}\n", style=f"bold {_STYLES.get(name, 'default')}")
        text.append_text(_readable(ids, tokenizer, control, style=_STYLES.get(name, "default")))
        text.append("\n")
    return text


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

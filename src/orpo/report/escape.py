"""The one door for text that models, data and machines wrote: any string enters, text that is inert in HTML leaves."""

from __future__ import annotations

import html
import re
import unicodedata

# Format characters that have a shape of their own, or that whole scripts and emoji cannot be spelled without.
_NEEDED = frozenset("\u200c\u200d\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd") | {chr(code) for code in range(0x600, 0x606)}
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape(text: str) -> str:
    """`text` for an HTML text node or a double-quoted attribute: markup characters as entities, what cannot be seen as visible escapes.

    Control and bidi characters, other invisible format characters, lone surrogates and noncharacters become `\\x1b`,
    `\\u202e` or `\\U000e0041`; newline and tab stay. The result can always be encoded as UTF-8.
    """
    return html.escape(visible(text), quote=True).replace("`", "&#96;")


def visible(text: str) -> str:
    """`text` with each character that would be invisible, or would reorder its neighbours, written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(character) if _is_hidden(character) else character for character in text)


def _is_hidden(character: str) -> bool:
    if character in "\n\t" or character in _NEEDED:
        return False
    return (
        unicodedata.category(character) in _HIDDEN_CATEGORIES or (ord(character) & 0xFFFE) == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF
    )


def _spelled(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clipped(text: str, most: int) -> str:
    """`text`, or its first `most` characters and how many are left out."""
    if len(text) <= most:
        return text
    cut, whole = (f"{num:,}".replace(",", "\u202f") for num in (len(text) - most, len(text)))
    return f"{text[:most]}\u2026 [cut here: {cut} of {whole} characters are not shown]"


def escape_markdown(text: str) -> str:
    """`text` as one line of Markdown that shows itself: no HTML, no link, no emphasis, no table cell can come of it."""
    line = " ".join(visible(text).split())
    # Punctuation that starts a construct inside a line; `:` and `.` only where a bare address would become a link.
    return re.sub(r"([\\`*_\[\]#|~$]|:(?=/)|(?<=www)\.|@)", r"\\\1", html.escape(line, quote=False), flags=re.IGNORECASE)

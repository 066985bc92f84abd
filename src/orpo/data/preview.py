"""A row for a person to read: its view enters, coloured lines leave. What colour says, marks say as well."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.text import Text

from orpo.data.row_view import PartView, RowView, Stretch

OPEN, CLOSE, BREAK, SPACE, TAB = "⟦", "⟧", "↵", "␣", "→"
LEAST_WIDTH = 24
UNKNOWN = "without --model nobody knows the template, the tokens, whether an answer ends with EOS, and what max_length cuts"
_VERBS = {"+": "raises", "-": "lowers", "±": "raises and lowers"}
_COLOURS = {"prompt": "grey62", "chosen": "green", "desirable": "green", "best": "green", "between": "default"}
_REJECTED = "red"
_NO_MARGIN = Text()
_KEPT = {"\n", "\t"}
_ESCAPED = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in (OPEN, CLOSE, BREAK, SPACE)})


@dataclass(frozen=True, slots=True)
class Learned:
    """What an objective learns from a part: two marks for the margin ('N' and '+', '-' or '±', or spaces), and the same in words."""

    marks: str = "  "
    said: str = "carries no loss"


def drawn(view: RowView, learned: Mapping[str, Learned], *, width: int | None = None) -> Text:
    """The row, part by part, each line with its marks; wrapped at `width`, not at all for None.

    Prompts are grey, better answers green, worse ones red. Text that is not the row's own stands in ⟦ ⟧, control tokens in it reversed; the
    same characters typed in data are escaped, as are control and bidirectional characters, which could change the terminal.
    """
    text = Text()
    _append(text, Text(visible(str(view.source)), "bold"), width=width)
    if view.fate:
        _append(text, Text(f"left out  {visible(view.fate)}", "bold yellow"), width=width)
    for part in view.parts:
        _append_part(text, part, learned.get(part.part, Learned()), view=view, width=width)
    for note in view.notes:
        _append(text, Text(f"note      {note}", "dim"), width=width)
    return text


def legend(views: Sequence[RowView], learned: Mapping[str, Learned], *, has_tokens: bool) -> list[tuple[str, str]]:
    """What the marks mean that stand in `views`, each with a label."""
    parts = [part for view in views for part in view.parts]
    marks = "".join(learned.get(part.part, Learned()).marks for part in parts)
    rest = "the rest of the loss" if "N" in marks else "the loss"
    meanings = {"N": "the NLL raises these tokens", **{mark: f"{rest} {verb} them" for mark, verb in _VERBS.items()}}
    said = [f"{mark} {meaning}" for mark, meaning in meanings.items() if mark in marks]
    said += ["x beyond max_length"] * any(part.num_cut for part in parts) + ["blank no loss"]
    inside = "from the template or the tokenizer, not the row's own" if has_tokens else "whose turn it is"
    shown = f"{OPEN}{CLOSE} {inside}; {BREAK} line break; {SPACE} space at an edge; {TAB} tab; \\x1b and the like: escaped"
    return [("margin", "; ".join(said)), ("text", shown)] + [("unknown", UNKNOWN)] * (not has_tokens)


def visible(text: str) -> str:
    """`text` with control, bidirectional and other invisible characters as escapes; line breaks and tabs stay."""
    return "".join(character if character in _KEPT or not _is_hidden(character) else _escape(character) for character in text)


def _is_hidden(character: str) -> bool:
    # Cc controls, Cf formats (bidirectional marks, zero-width joiners), Cs lone surrogates, Co private use, Cn unassigned, Zl/Zp line ends
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _append_part(text: Text, part: PartView, learned: Learned, *, view: RowView, width: int | None) -> None:
    """Appends a heading and the lines of a part to `text`."""
    style = _COLOURS.get(part.part, _REJECTED)
    counts = "" if part.num_tokens is None else f", {part.num_tokens:,} tokens ({part.num_own:,} its own)"
    _append(text, Text(f"{part.name}{counts}, {learned.said}", f"bold {style}"), width=width)
    for is_cut, run in groupby(part.stretches, key=lambda stretch: stretch.is_cut):
        if is_cut:
            what = "do not fit" if view.fate else "are cut off, the end of the answer with them"
            said = f"┄┄ max_length {view.max_length:,} ends here: {part.num_cut:,} tokens {what} ┄┄"
            _append(text, Text(said, "yellow"), Text("x  ", "yellow"), width=width)
        margin = Text("x  ┆ ", "yellow") if is_cut else Text(f"{learned.marks} │ ", f"bold {style}")
        for line in _lines(list(run), "dim strike" if is_cut else style):
            _append(text, line, margin, width=width)


def _lines(stretches: Sequence[Stretch], style: str) -> list[Text]:
    """The text cut at its line breaks, which stay visible; all that is not the row's own in brackets."""
    lines = [Text()]
    own = [stretch for stretch in stretches if stretch.origin == "own"]
    edges = (own[0], own[-1]) if own else (None, None)
    for is_own, run in groupby(stretches, key=lambda stretch: stretch.origin == "own"):
        is_open = False
        for stretch, piece in _pieces(run):
            if not is_own and not is_open:
                lines[-1].append(OPEN, style="dim")
            is_open = not is_own
            lines[-1].append(_shown(piece, stretch, edges), style=_style(stretch, style))
            if piece.endswith("\n"):
                lines[-1].append(BREAK + CLOSE * is_open, style="dim")
                lines.append(Text())
                is_open = False
        if is_open:
            lines[-1].append(CLOSE, style="dim")
    return lines if lines[-1].plain or len(lines) == 1 else lines[:-1]


def _pieces(stretches: Iterator[Stretch]) -> Iterator[tuple[Stretch, str]]:
    """Each stretch with its text, cut behind each line break."""
    return ((stretch, piece) for stretch in stretches for piece in re.findall(r"[^\n]*\n|[^\n]+", stretch.text))


def _shown(piece: str, stretch: Stretch, edges: tuple[Stretch | None, Stretch | None]) -> str:
    """A piece of one line as it is printed: invisible characters as escapes, spaces visible at the edges of a part and before a break."""
    body = piece.removesuffix("\n")
    shown = visible(body)
    if stretch.origin == "own":
        shown = shown.translate(_ESCAPED)
        if stretch is edges[0] and stretch.text.startswith(piece):
            shown = SPACE * (len(shown) - len(shown.lstrip(" "))) + shown.lstrip(" ")
        if piece != body or (stretch is edges[1] and stretch.text.endswith(piece)):
            shown = shown.rstrip(" ") + SPACE * (len(shown) - len(shown.rstrip(" ")))
    return shown.replace("\t", f"{TAB}   ")


def _style(stretch: Stretch, style: str) -> str:
    return {"own": style, "template": f"{style} italic dim", "control": f"{style} reverse dim"}[stretch.origin]


def _append(text: Text, line: Text, margin: Text = _NO_MARGIN, *, width: int | None) -> None:
    """Appends a line to `text`, wrapped beside its margin."""
    room = max(width, LEAST_WIDTH) - len(margin) if width is not None else None
    pieces = [line] if room is None else list(line.wrap(Console(width=room), room, overflow="fold"))
    for piece in pieces or [line]:
        text.append_text(margin).append_text(piece).append("\n")

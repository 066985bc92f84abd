"""Transcripts in the manner of HH-RLHF: one text with a turn after each blank line that is followed by 'Human:' or 'Assistant:'."""

from __future__ import annotations

import re
from dataclasses import replace

from orpo.core.records import Conversation, Message, PreferencePair
from orpo.data.shapes.problems import RowProblem

_MARKER = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}
_PADDING = " \t\r\n"
"""White space around a turn is layout of the transcript, not content; a no-break space is content."""


def looks_like_transcript(text: str) -> bool:
    """True when the text begins with a turn and has an assistant's turn."""
    first = _MARKER.match(text)
    return first is not None and (first[1] == "Assistant" or any(marker[1] == "Assistant" for marker in _MARKER.finditer(text)))


def parse_transcript(text: str) -> Conversation:
    """The turns of a transcript, each without the white space around it; RowProblem when it does not begin with a turn."""
    markers = list(_MARKER.finditer(text))
    if not markers or markers[0].start() != 0:
        raise RowProblem(
            "not-a-transcript",
            f"a transcript begins with 'Human:' or 'Assistant:', this text begins with {text.strip().partition(chr(10))[0][:40]!r}",
            fix="write each turn after a blank line as 'Human: ...' or 'Assistant: ...', or keep such rows in a file of their own",
        )
    ends = [marker.start() for marker in markers[1:]] + [len(text)]
    return tuple(Message(_ROLES[marker[1]], text[marker.end() : end].strip(_PADDING)) for marker, end in zip(markers, ends, strict=True))


def render_transcript(turns: Conversation) -> str:
    """The transcript of user and assistant turns: parsing it gives the same turns."""
    return "".join(f"\n\n{_SPEAKERS[turn.role]}: {turn.content}" for turn in turns)


def as_text(pair: PreferencePair) -> PreferencePair:
    """The same pair as plain text, for models without a chat template: the prompt ends with 'Assistant:', completions begin with a space.

    Only for pairs read from transcripts: their turns are the user's and the assistant's alone, and completions begin with the latter.
    """
    opening = "\n\nAssistant:"
    chosen, rejected = (_rendered(turns).removeprefix(opening) for turns in (pair.chosen, pair.rejected))
    return replace(pair, prompt=_rendered(pair.prompt) + opening, chosen=chosen, rejected=rejected)


def _rendered(turns: str | Conversation) -> str:
    assert not isinstance(turns, str), "this pair is plain text already"
    return render_transcript(turns)

"""The prompt that two plain texts share, cut where a person would: at a turn, else at a line or sentence, else at white space."""

from __future__ import annotations

import re

from orpo.data.shapes.problems import RowProblem, dropped

_ASSISTANT_TURN = re.compile(
    r"(?:^|\n)[ \t]*(?:\#+[ \t]*)?(?:assistant|ai|bot|model|gpt|response|answer|output|a)[ \t]*:(?=\s|\Z)"
    r"|(?-i:\bASSISTANT:(?=\s|\Z))"
    r"|<\|assistant\|>\n?|<\|im_start\|>assistant\n|<\|start_header_id\|>assistant<\|end_header_id\|>\n\n|<start_of_turn>model\n|\[/INST\]",
    re.IGNORECASE,
)
_SENTENCE_END, _WIDE_SENTENCE_END, _CLOSING = ".?!:;…", "。？！", "\"'”’)]»」』"


def shared_prompt(chosen: str, rejected: str) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) of two whole texts; their concatenation gives the texts back. Never cut inside a word."""
    if chosen == rejected:
        raise dropped("identical", "chosen and rejected are identical")
    common = _num_common(chosen, rejected)
    shorter = min(len(chosen.rstrip()), len(rejected.rstrip()))
    cut = _last_turn(chosen, common) or _last_boundary(chosen, rejected, min(common, shorter - 1))
    if not cut and common and common >= shorter:
        raise dropped("empty-answer", "one text is the beginning of the other: nothing is left for its answer")
    if not cut:
        fix = "give the prompt in a column of its own (prompt, or --columns prompt=NAME)"
        raise RowProblem("no-common-prompt", "chosen and rejected do not begin with a shared prompt", fix=fix)
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _num_common(left: str, right: str) -> int:
    """How many characters both texts begin with."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _last_turn(text: str, common: int) -> int:
    """Where the last assistant's turn opens within the shared part, 0 if none does."""
    ends = [found.end() for found in _ASSISTANT_TURN.finditer(text, 0, common + 1) if found.end() <= common]
    return ends[-1] if ends else 0


def _last_boundary(chosen: str, rejected: str, limit: int) -> int:
    """The last end of a line or sentence at or before `limit`, else the last white space, else 0."""
    space = 0
    for place in range(limit, 0, -1):
        followed_by_space = chosen[place].isspace() and rejected[place].isspace()
        before = chosen[max(0, place - 4) : place].rstrip(_CLOSING)[-1:] or chosen[place - 1]
        if chosen[place - 1] == "\n" or before in _WIDE_SENTENCE_END or (followed_by_space and before in _SENTENCE_END):
            return place
        if not space and followed_by_space and not before.isspace():
            space = place
    return space

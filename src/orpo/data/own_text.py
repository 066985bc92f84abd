"""Which characters of a rendered row are the row's own, and which the template put there: an example enters, ranges of characters leave."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from orpo.core.records import Conversation, Text
from orpo.data.control_text import unused_marks
from orpo.data.example import Example
from orpo.data.rendering import Rendered, Renderer, as_chat
from orpo.data.row import Problem

Ranges = tuple[tuple[int, int], ...]
"""(start, end) of characters, in order."""


def own_ranges(renderer: Renderer, example: Example, rendered: Rendered) -> tuple[Ranges, ...] | None:
    """The row's own characters in each of `rendered.full`; None where the template changes the turns so that they cannot be found.

    The row is rendered once more with a probe in place of each turn: what stands between the probes is the template's. A search for the
    turns themselves would find a user's "user" in the template's own word.
    """
    if renderer.is_raw and isinstance(example.prompt, str):
        return tuple(((0, len(_joined(rendered, place))),) for place in range(len(rendered.full)))
    chat = example if renderer.is_raw else as_chat(example)
    parts = [part for part in (chat.prompt, *chat.completions) if not isinstance(part, str)]
    contents = [turn.content for part in parts for turn in part]
    mark = unused_marks([contents, *(_joined(rendered, place) for place in range(len(rendered.full)))])
    numbers = count()
    prompt, *completions = (_probed(part, numbers, mark.opening, mark.closing) for part in parts)
    with renderer.budget() as budget:
        probed = renderer.rendered(replace(chat, prompt=prompt, completions=tuple(completions)), budget)
    if isinstance(probed, Problem):
        return None
    cut = re.compile(f"{mark.opening}(\\d+){mark.closing}")
    found = [_aligned(_joined(rendered, place), cut.split(_joined(probed, place)), contents) for place in range(len(rendered.full))]
    return None if any(ranges is None for ranges in found) else tuple(ranges for ranges in found if ranges is not None)


def _joined(rendered: Rendered, place: int) -> str:
    return "".join(text for text, _ in rendered.full[place])


def _probed(part: Text | Conversation, numbers: Iterator[int], opening: str, closing: str) -> Conversation:
    """The turns with a numbered probe as text. A turn without text stays as it is: templates ask whether there is any."""
    assert not isinstance(part, str), "text was made a turn"
    numbered = [(turn, next(numbers)) for turn in part]
    return tuple(replace(turn, content=f"{opening}{number}{closing}") if turn.content else turn for turn, number in numbered)


def _aligned(text: str, skeleton: Sequence[str], contents: Sequence[str]) -> Ranges | None:
    """Where the contents lie in `text`: the skeleton (literal, number, literal, number, ..., literal) with contents for its numbers."""
    ranges, place = [], 0
    for index in range(0, len(skeleton) - 1, 2):
        literal, content, following = skeleton[index], contents[int(skeleton[index + 1])], skeleton[index + 2]
        if not text.startswith(literal, place):
            return None
        start = place + len(literal)
        # Templates take white space off a turn, or leave it.
        forms = dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip()))
        ends = [start + len(form) for form in forms if text.startswith(form + following, start)]
        if not ends:
            return None
        place = ends[0]
        ranges.append((start, place))
    return tuple(ranges) if text[place:] == skeleton[-1] else None

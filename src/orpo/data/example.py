"""The one form of a row before it is text: a pair, a labelled answer or a ranking enters, a prompt and its completions leave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from orpo.core.records import Conversation, LabelledAnswer, PreferencePair, Reads, Record, Source, Text


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and its completions: all plain text, or all messages. `labels` and `scores` are those of `TokenizedExample`."""

    prompt: Text | Conversation
    completions: tuple[Text | Conversation, ...]
    source: Source
    tools: tuple[Mapping[str, Any], ...] = ()
    labels: tuple[bool, ...] = ()
    scores: tuple[float, ...] = ()


def as_example(record: Record, reads: Reads = "pairs") -> Example:
    """The record as an example. Where labelled answers are read, the chosen answer of a pair is desirable and the rejected one is not."""
    if isinstance(record, PreferencePair):
        labels = (True, False) if reads == "labelled" else ()
        return Example(record.prompt, (record.chosen, record.rejected), record.source, record.tools, labels)
    if isinstance(record, LabelledAnswer):
        return Example(record.prompt, (record.completion,), record.source, record.tools, (record.is_desirable,))
    return Example(record.prompt, record.completions, record.source, record.tools, scores=record.scores)


def prompt_hash(example: Example) -> int:
    """A 64-bit hash of the prompt."""
    return _hash([_as_text(example.prompt)])


def whole_hash(example: Example) -> int:
    """A 64-bit hash of the prompt, the completions in order, and their labels."""
    labels = [repr(example.labels)] if example.labels else []
    return _hash([*map(_as_text, (example.prompt, *example.completions)), *labels])


def group_hash(example: Example) -> int:
    """A 64-bit hash of prompt and tools: equal for labelled answers that can be paired."""
    return _hash([_as_text(example.prompt), json.dumps(example.tools, sort_keys=True, default=str)])


def _as_text(part: Text | Conversation) -> str:
    return part if isinstance(part, str) else repr([turn.as_dict() for turn in part])


def _hash(parts: Sequence[str]) -> int:
    digest = blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)  # with its length: "ab" + "c" is not "a" + "bc"
    return int.from_bytes(digest.digest(), "little")

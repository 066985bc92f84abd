"""The one form of a row before it is text: a pair, a labelled answer or a ranking enters, a prompt and its completions leave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

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


class Hashes(NamedTuple):
    """8 bytes each: of the prompt, of what is said of its answers, and of the opposite.

    The opposite of answers in an order are the same answers in reversed order; that of a single labelled answer is its other label.
    """

    prompt: bytes
    said: bytes
    opposite: bytes


def as_example(record: Record, reads: Reads = "pairs") -> Example:
    """The record as an example. Where labelled answers are read, the chosen answer of a pair is desirable and the rejected one is not."""
    if isinstance(record, PreferencePair):
        labels = (True, False) if reads == "labelled" else ()
        return Example(record.prompt, (record.chosen, record.rejected), record.source, record.tools, labels)
    if isinstance(record, LabelledAnswer):
        return Example(record.prompt, (record.completion,), record.source, record.tools, (record.is_desirable,))
    return Example(record.prompt, record.completions, record.source, record.tools, scores=record.scores)


def hashes(example: Example) -> Hashes:
    """What tells the example from others, and what it would contradict."""
    prompt = _hash(_as_bytes(example.prompt))
    answers = [_hash(_as_bytes(part)) for part in example.completions]
    labels = bytes(example.labels)
    if len(answers) == 1:
        said, opposite = (_hash(answers[0] + marks) for marks in (labels, bytes(not label for label in example.labels)))
    elif len(answers) == 2 and not labels:
        said, opposite = answers
    else:
        said, opposite = (_hash(b"".join(parts) + labels) for parts in (answers, answers[::-1]))
    return Hashes(prompt, said, opposite)


def group_hash(example: Example) -> int:
    """A 64-bit hash of prompt and tools: equal for labelled answers that can be paired."""
    tools = json.dumps(example.tools, sort_keys=True, default=str)
    return int.from_bytes(_hash(_hash(_as_bytes(example.prompt)) + _hash(_as_bytes(tools))), "little")


def text_of(part: Text | Conversation) -> str:
    """The words of a prompt or an answer: of messages their contents, one after another, but for the system's, which many rows share."""
    return part if isinstance(part, str) else "\n".join(turn.content for turn in part if turn.role != "system")


def _as_bytes(part: Text | Conversation) -> bytes:
    text = part if isinstance(part, str) else repr([turn.as_dict() for turn in part])
    return text.encode("utf-8", "surrogatepass")


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()

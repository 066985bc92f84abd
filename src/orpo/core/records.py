"""What a row of a file becomes: a pair, a labelled answer or a ranking, with the place it came from. No torch, no tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Source:
    """The place of a row: a file and a line (1-based), or a row number (1-based) where the file has no lines."""

    file: str
    number: int
    is_line: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.is_line else f"{self.file}:row {self.number}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `extra` holds what templates may read beside role and content (tool_calls, name, ...)."""

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates expect it."""
        return {"role": self.role, "content": self.content, **self.extra}


Text = str
Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A prompt with a better and a worse completion: all three are plain text, or all three are messages.

    With messages, `prompt` ends with the turn that the completions answer, and each completion holds one or more
    turns, the first by the assistant. `tools` is handed to the chat template. `metadata` keeps the other columns.
    """

    prompt: Text | Conversation
    chosen: Text | Conversation
    rejected: Text | Conversation
    source: Source
    tools: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_chat(self) -> bool:
        """True when prompt and completions are messages."""
        return not isinstance(self.prompt, str)


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """A prompt with one completion and whether it is desirable: plain text both, or messages both, as in `PreferencePair`."""

    prompt: Text | Conversation
    completion: Text | Conversation
    is_desirable: bool
    source: Source
    tools: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ranking:
    """A prompt with two or more completions, best first; `scores` has one number each, not rising, or is empty: an order alone."""

    prompt: Text | Conversation
    completions: tuple[Text | Conversation, ...]
    source: Source
    scores: tuple[float, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


Record = PreferencePair | LabelledAnswer | Ranking

Reads = Literal["pairs", "labelled", "rankings"]
"""What an objective reads of the data: pairs, labelled answers, or rankings."""

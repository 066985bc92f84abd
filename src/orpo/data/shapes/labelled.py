"""Readers of labelled answers (KTO): one answer a row, called good or bad. Two rows with the same prompt can be paired."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orpo.core.records import Conversation
from orpo.data.shapes.answers import with_system
from orpo.data.shapes.conversations import last_answer
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.instructions import alpaca_prompt, reply


@dataclass(frozen=True, slots=True)
class LabelledDraft:
    """What a reader made of a row: a prompt, one completion, and whether it is good, before the checks."""

    prompt: str | Conversation
    completion: str | Conversation
    is_good: bool
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def group_key(self) -> bytes:
        """A digest of prompt and tools: equal for rows that can be paired. 16 bytes, so that a file's keys fit into memory."""
        prompt = self.prompt if isinstance(self.prompt, str) else [turn.as_dict() for turn in self.prompt]
        text = json.dumps([prompt, self.tools], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


LabelledReader = Callable[[Fields], LabelledDraft]


def strings(fields: Fields) -> LabelledDraft:
    """prompt, completion and label, plain text."""
    return LabelledDraft(fields.text("prompt"), fields.text("completion"), fields.flag("label"))


def messages(fields: Fields) -> LabelledDraft:
    """prompt, completion and label, messages."""
    return _with_columns(fields, fields.messages("prompt"), fields.answer("completion"), "label")


def conversation(column: str, label: str) -> LabelledReader:
    """The reader of a whole conversation, whose last answer is labelled."""

    def read(fields: Fields) -> LabelledDraft:
        whole = fields.messages(column)
        num = last_answer(whole, fields.place(column))
        return _with_columns(fields, whole[:num], whole[num:], label)

    return read


def alpaca(fields: Fields) -> LabelledDraft:
    """instruction, input, output and kto_tag."""
    return _with_columns(fields, alpaca_prompt(fields), reply(fields.text("output")), "kto_tag")


def _with_columns(fields: Fields, prompt: Conversation, completion: Conversation, label: str) -> LabelledDraft:
    return LabelledDraft(with_system(prompt, fields.optional_text("system")), completion, fields.flag(label), fields.tools())

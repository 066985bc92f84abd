"""Conversations with one model or two, in step: what a user asks enters, a reply of each leaves; each hears its own replies only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo.core.records import Conversation, Message, Source
from orpo.core.tokens import TokenIds
from orpo.data.example import Example
from orpo.data.row import Problem
from orpo.errors import UserError
from orpo.evaluation.generation import Reply, positions_left
from orpo.evaluation.sampling import Sampling
from orpo.evaluation.streaming import streamed_reply
from orpo.pipeline.run import quiet_libraries
from orpo.pipeline.speakers import BASE, Speaker, base_speaker, generation_dtype, speaker_of, voice_of
from orpo.runs.atomic import write_text_atomic
from orpo.runs.jsontext import to_text
from orpo.runs.redact import redact


@dataclass(frozen=True, slots=True)
class Round:
    """One question and the reply of each speaker."""

    question: str
    replies: tuple[str, ...]


@dataclass(slots=True)
class Chat:
    """What was said so far. A speaker without chat template hears each question alone, as text to go on with."""

    speakers: Sequence[Speaker]
    sampling: Sampling
    system: str = ""
    rounds: list[Round] = field(default_factory=list)
    num_replies: int = 0

    def prompts(self, question: str) -> list[TokenIds]:
        """The question after all that was said, as each speaker hears it. UserError where a template or the positions do not allow it."""
        return [self._prompt(index, question) for index in range(len(self.speakers))]

    def _prompt(self, index: int, question: str) -> TokenIds:
        speaker = self.speakers[index]
        asked = question if speaker.voice.manner == "text" else self._turns(index, question)
        (ids,) = speaker.voice.prompt_ids([Example(asked, (), Source("chat", len(self.rounds) + 1))])
        if isinstance(ids, Problem):
            raise UserError(ids.message, doing=f"asking {speaker.name}", fix="change the question, or /reset and /system")
        if positions_left(speaker.body, ids) <= 0:
            raise UserError(f"the conversation fills all positions that {speaker.name} has", fix="/undo the last round, or /reset")
        return ids

    def _turns(self, index: int, question: str | None = None) -> Conversation:
        turns = [Message("system", self.system)] if self.system else []
        for said in self.rounds:
            turns += [Message("user", said.question), Message("assistant", said.replies[index])]
        return (*turns, *([Message("user", question)] if question is not None else []))

    def reply(self, index: int, prompt: TokenIds, *, show: Callable[[str], None], should_stop: Callable[[], bool]) -> Reply:
        """The reply of one speaker; `show` gets its text after every token. Random numbers are those of the seed and of this round."""
        speaker = self.speakers[index]
        with speaker.speaking():
            return streamed_reply(
                speaker.body,
                speaker.voice.tokenizer,
                prompt,
                self.sampling,
                key=(self.num_replies,),
                show=show,
                should_stop=should_stop,
            )

    def add(self, question: str, replies: Sequence[str]) -> None:
        """Nothing; the round is part of the conversation."""
        self.rounds.append(Round(question, tuple(replies)))
        self.num_replies += 1

    def save(self, path: Path) -> None:
        """Writes each speaker's conversation as a line of JSON: its name, and messages. UserError where the file is there already."""
        if path.exists():
            raise UserError(f"{path} exists already; nothing was written", fix="give another name")
        rows: list[dict[str, Any]] = [
            {"model": speaker.name, "messages": [turn.as_dict() for turn in self._turns(index)]}
            for index, speaker in enumerate(self.speakers)
        ]
        write_text_atomic(path, "".join(to_text(redact(row)) + "\n" for row in rows))


def open_chat(run: str, versus: str | None, sampling: Sampling, *, dtype: str) -> Chat:
    """A chat with `run`, and with `versus` beside it: the model that it began with for 'base', else a run or a model of that name."""
    quiet_libraries()
    held_in = generation_dtype(dtype)
    voice, other = voice_of(run), voice_of(versus) if versus not in (None, BASE) else None
    first = speaker_of(voice, held_in)
    if other is not None:
        return Chat((first, speaker_of(other, held_in)), sampling)
    return Chat((first, base_speaker(first, held_in)) if versus else (first,), sampling)

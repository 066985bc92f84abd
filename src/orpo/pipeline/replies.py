"""Replies to be measured: files of prompts and a model enter; its replies leave, all of them made the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orpo.core.tokens import TokenIds
from orpo.data.prompts import Prompt, read_prompts
from orpo.data.row import Problem
from orpo.errors import ConfigError, DataError
from orpo.evaluation.batched import replies_by_batch
from orpo.evaluation.generation import Reply
from orpo.evaluation.sampling import Sampling
from orpo.pipeline.evaluate import base_of
from orpo.pipeline.speakers import Speaker, Voice
from orpo.training import models

PROMPTS_PER_BATCH = 16
ERRORS_SHOWN = 20

Say = Callable[[str], None]
Tick = Callable[[int, int], None]
"""Called with (what is done of a step, of how many)."""


@dataclass(frozen=True, slots=True)
class Replying:
    """How replies to be measured are made: to the prompts of `files`, or to `num_prompts` of them, spread evenly."""

    files: tuple[str, ...]
    sampling: Sampling = field(default_factory=Sampling)
    columns: Mapping[str, str] | None = None
    num_prompts: int | None = None

    def prompts(self, say: Say) -> list[Prompt]:
        """The prompts, each once: a second reply to the same one is no news. Raises DataError as `read_prompts`."""
        read = [read_prompts(path, columns=self.columns) for path in self.files]
        for note in (note for file in read for note in file.notes):
            say(note)
        every = [prompt for file in read for prompt in file.prompts]
        first: dict[str, Prompt] = {}
        for prompt in every:
            first.setdefault(repr((prompt.prompt, prompt.tools)), prompt)
        once = list(first.values())
        if len(once) < len(every):
            say(f"repeated     {len(every) - len(once):,} prompts stand in the data more than once and are asked once")
        num = len(once) if self.num_prompts is None else min(self.num_prompts, len(once))
        return [once[index * len(once) // num] for index in range(num)]

    def settings(self) -> dict[str, object]:
        """What an evaluation says about its replies."""
        return {"prompts": list(self.files), "num_prompts_asked": self.num_prompts, **self.sampling.as_dict()}


def prompt_ids(voice: Voice, prompts: Sequence[Prompt]) -> list[TokenIds]:
    """What a reply of `voice` follows, for each prompt. DataError naming those that it cannot be asked."""
    made = voice.prompt_ids([prompt.example for prompt in prompts])
    problems = [item for item in made if isinstance(item, Problem)]
    if problems:
        lines = [problems[0].message, *(f"{problem.source}: {problem.message}" for problem in problems[1:ERRORS_SHOWN])]
        doing = f"writing prompts for {voice.name}: {len(problems):,} of {len(made):,} cannot be written"
        raise DataError("\n".join(lines), where=str(problems[0].source), doing=doing, fix=problems[0].fix)
    return [item for item in made if not isinstance(item, Problem)]


def reply_room(voice: Voice, ids: Sequence[TokenIds], sampling: Sampling) -> list[int]:
    """The most tokens that a reply to each prompt can have. Raises ConfigError for a prompt that leaves no room for any."""
    positions = models.load_shape(base_of(voice.folder, voice.config)).max_positions
    room = [sampling.max_new_tokens if positions is None else min(sampling.max_new_tokens, positions - len(prompt)) for prompt in ids]
    if min(room) < 1:
        longest = max(map(len, ids))
        raise ConfigError(
            f"a prompt has {longest:,} tokens, and {voice.name} only {positions:,} positions: there is no room for a reply",
            doing="measuring replies",
            fix="leave out the prompts that are this long",
        )
    return room


def replies_of(speaker: Speaker, ids: Sequence[TokenIds], sampling: Sampling, *, num: int = 1, tick: Tick) -> list[list[Reply]]:
    """`num` replies to each prompt, in order. A reply depends on its prompt's number, its own and the seed, not on the batch."""
    keys = [(number, sample) for number in range(len(ids)) for sample in range(num)]
    repeated = [ids[number] for number, _ in keys]
    done: dict[int, Reply] = {}
    with speaker.speaking():
        for batch in replies_by_batch(speaker.body, speaker.voice.tokenizer, repeated, keys, sampling, batch_size=PROMPTS_PER_BATCH):
            done |= dict(batch)
            tick(len(done), len(keys))
    return [[done[number * num + sample] for sample in range(num)] for number in range(len(ids))]

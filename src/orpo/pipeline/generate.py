"""Replies of a trained run, or of any model, to the prompts of a file: in batches, seeded, and kept as they are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from orpo.core.tokens import TokenIds
from orpo.data.columns import parse_columns
from orpo.data.prompts import PromptFile, read_prompts
from orpo.errors import ConfigError, InterruptedRun, OutOfMemoryError
from orpo.evaluation.batched import replies_by_batch
from orpo.evaluation.generation import Reply
from orpo.evaluation.sampling import Sampling
from orpo.pipeline.replies import prompt_ids
from orpo.pipeline.reply_file import FORMATS, Place, ReplyFile, instruction
from orpo.pipeline.run import quiet_libraries
from orpo.pipeline.speakers import Speaker, Voice, generation_dtype, speaker_of, voice_of
from orpo.runs import names
from orpo.training.checkpointing import base_model_facts

Say = Callable[[str], None]
Tick = Callable[[int, int, int], None]
"""Called with (replies that are there, replies in all, tokens of the last batch)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How replies are made and written. Raises ConfigError for what contradicts itself."""

    sampling: Sampling = field(default_factory=Sampling)
    num_samples: int = 1
    batch_size: int = 16
    dtype: str = "auto"
    columns: str | None = None
    limit: int | None = None
    format: str = "jsonl"

    def __post_init__(self) -> None:
        for name, value in (("num-samples", self.num_samples), ("batch-size", self.batch_size), ("limit", self.limit)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} is {value}", expected="1 or more")
        if self.format not in FORMATS:
            raise ConfigError(f"--format is {self.format!r}", expected=f"one of {', '.join(FORMATS)}", fix="leave it out for jsonl")
        if self.num_samples > 1 and not self.sampling.temperature:
            problem = f"--num-samples {self.num_samples} at --temperature 0 would give the same reply {self.num_samples} times"
            raise ConfigError(problem, fix="add --temperature 1")
        if self.num_samples > 1 and self.format == "alpaca-eval":
            raise ConfigError(f"--num-samples {self.num_samples}: alpaca-eval takes one reply to a prompt", fix="use --format jsonl")


@dataclass(frozen=True, slots=True)
class Generated:
    """What was written: figures of this call (`num_made` replies, their tokens and seconds), and of the whole file."""

    path: Path
    num_prompts: int
    num_replies: int
    num_made: int
    num_tokens: int
    seconds: float
    num_cut: int
    num_without_room: int


def generate(run: str, prompts: str, out: str, asked: Asked, *, say: Say = lambda _: None, tick: Tick = lambda *_: None) -> Generated:
    """Writes `out` with replies of `run` to `prompts`; the same call again goes on where it was stopped.

    What a reply is depends on the weights, its prompt, the settings and its own number, not on `batch_size`; but sums of floats
    depend on their order, so a token that is almost as likely as another may change place, above all in bfloat16.

    Raises ConfigError or DataError before weights are loaded.
    """
    quiet_libraries()
    dtype = generation_dtype(asked.dtype)
    read = read_prompts(prompts, columns=parse_columns(asked.columns) if asked.columns else None, limit=asked.limit)
    if asked.format == "alpaca-eval":
        for prompt in read.prompts:
            instruction(prompt)
    voice = voice_of(run)
    ids = prompt_ids(voice, read.prompts)
    file = ReplyFile(Path(out).expanduser(), _settings(voice, read, asked, dtype))
    for line in (*read.notes, f"prompts      {len(read.prompts):,} of {prompts}", f"template     {voice.template.description}"):
        say(line)
    say(f"sampling     {asked.sampling}, at most {asked.sampling.max_new_tokens:,} tokens")
    places = [(number, sample) for number in range(len(ids)) for sample in range(asked.num_samples)]
    if file.is_finished:
        say(f"done         {file.path} is there already, with the same settings")
        return Generated(file.path, len(ids), len(places), 0, 0, 0.0, 0, 0)
    if file.replies:
        say(f"goes on      {len(file.replies):,} of {len(places):,} replies were there already")
    num_before, started = len(file.replies), time.monotonic()
    left = [place for place in places if place not in file.replies]
    seconds = _make(file, left, ids, lambda: speaker_of(voice, dtype), asked, tick) if left else time.monotonic() - started
    replies = [[file.replies[number, sample] for sample in range(asked.num_samples)] for number in range(len(ids))]
    file.finish(FORMATS[asked.format](read.prompts, replies, _generator(run)))
    return _figures(file, replies, num_before=num_before, made=left, seconds=seconds)


def _settings(voice: Voice, read: PromptFile, asked: Asked, dtype: torch.dtype) -> dict[str, Any]:
    """All that replies depend on. Folders may move: weights and prompts are named by their hashes."""
    return {
        "model": base_model_facts(voice.folder).weights_sha256,
        "base": voice.base if voice.is_adapter else None,
        "in_4_bits": voice.is_adapter and voice.config.load_in_4bit,
        "template": voice.template.fingerprint,
        "prompts": [file.sha256 for file in read.files],
        "columns": asked.columns,
        "limit": asked.limit,
        "num_samples": asked.num_samples,
        "format": asked.format,
        "dtype": str(dtype).removeprefix("torch."),
        **asked.sampling.as_dict(),
    }


def _make(file: ReplyFile, left: Sequence[Place], ids: Sequence[TokenIds], load: Callable[[], Speaker], asked: Asked, tick: Tick) -> float:
    """Makes the replies that are left; the seconds that took, without loading."""
    speaker = load()
    total = len(file.replies) + len(left)
    tick(len(file.replies), total, 0)
    started = time.monotonic()
    prompts = [ids[number] for number, _ in left]
    with file.open() as log, speaker.speaking():
        batches = replies_by_batch(speaker.body, speaker.voice.tokenizer, prompts, left, asked.sampling, batch_size=asked.batch_size)
        try:
            for batch in batches:
                file.add(log, [(left[index], reply) for index, reply in batch])
                tick(len(file.replies), total, sum(reply.num_tokens for _, reply in batch))
        except KeyboardInterrupt as stop:
            raise InterruptedRun(
                f"stopped; {len(file.replies):,} of {total:,} replies are kept", fix="the same command again goes on from here"
            ) from stop
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"out of memory: {str(error).splitlines()[0]}",
                doing=f"replying in batches of {asked.batch_size}; {len(file.replies):,} of {total:,} replies are kept",
                fix=f"run it again with --batch-size {max(1, asked.batch_size // 2)}, or fewer --max-new-tokens",
            ) from error
    return time.monotonic() - started


def _generator(run: str) -> str:
    """What the replies are said to be by: the name of the run or the model."""
    path = Path(run).expanduser()
    if not path.is_dir():
        return run
    name = path.resolve()
    return name.parent.name if name.name in (names.MODEL, names.ADAPTER) else name.name


def _figures(file: ReplyFile, replies: Sequence[Sequence[Reply]], *, num_before: int, made: Sequence[Place], seconds: float) -> Generated:
    every = [reply for said in replies for reply in said]
    return Generated(
        path=file.path,
        num_prompts=len(replies),
        num_replies=len(every),
        num_made=len(every) - num_before,
        num_tokens=sum(file.replies[place].num_tokens for place in made),
        seconds=seconds,
        num_cut=sum(not reply.has_ended and reply.num_tokens > 0 for reply in every),
        num_without_room=sum(not reply.has_ended and reply.num_tokens == 0 for reply in every),
    )

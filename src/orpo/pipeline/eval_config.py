"""What `orpo eval` is asked for: flags enter, settings that do not contradict each other leave. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orpo.errors import ConfigError

REPLIES = ("greedy", "sampled")
_FIXES = {
    "judge": "add --judge RUN (a reward model), or --judge oracle in the built-in world",
    "vs": "add --vs base, or --vs RUN",
}


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """What is measured of `run`. Raises ConfigError for settings that contradict, or that nothing would read."""

    run: str
    data: tuple[str, ...] = ()
    columns: str | None = None
    template: str | None = None
    max_length: int | None = None
    vs: str | None = None
    judge: str | None = None
    diversity: bool = False
    num_samples: int | None = None
    prompts: tuple[str, ...] = ()
    num_prompts: int | None = None
    replies: str | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    tasks: tuple[str, ...] = ()
    task_data: tuple[str, ...] = ()
    num_documents: int | None = None

    def __post_init__(self) -> None:
        if not (self.data or self.vs or self.judge or self.diversity or self.tasks):
            raise ConfigError("nothing is to be measured", fix="give --data PAIRS, --vs base --judge JUDGE, --diversity, or --tasks ifeval")
        for given, missing in (("vs", "judge"), ("judge", "vs")):
            if getattr(self, given) and not getattr(self, missing):
                raise ConfigError(f"--{given} {getattr(self, given)} needs --{missing}", fix=_FIXES[missing])
        if self.makes_replies and not (self.prompts or self.data):
            asker = "--vs" if self.vs else "--diversity"
            raise ConfigError(f"{asker} needs prompts to reply to", fix="give --prompts FILE, or --data PAIRS, whose prompts are taken")
        self._refuse_unread(("prompts", "num_prompts"), self.makes_replies, "--vs with --judge, or --diversity")
        self._refuse_unread(("max_new_tokens",), self.makes_replies or bool(self.tasks), "--vs with --judge, --diversity, or --tasks")
        self._refuse_unread(("seed",), self.replies == "sampled" or self.diversity, "--replies sampled, or --diversity")
        self._refuse_unread(("columns",), bool(self.asked_for), "--data or --prompts")
        self._refuse_unread(("replies",), bool(self.vs), "--vs with --judge")
        self._refuse_unread(("num_samples",), self.diversity, "--diversity")
        self._refuse_unread(("task_data", "num_documents"), bool(self.tasks), "--tasks")
        self._refuse_unread(("template", "max_length"), bool(self.data), "--data")
        self._check_ranges()

    @property
    def makes_replies(self) -> bool:
        """Whether the model is asked anything."""
        return bool(self.vs) or self.diversity

    @property
    def asked_for(self) -> tuple[str, ...]:
        """The files whose prompts are replied to."""
        return self.prompts or self.data

    def _refuse_unread(self, settings: Sequence[str], is_read: bool, reader: str) -> None:
        for name in settings:
            if getattr(self, name) not in (None, ()) and not is_read:
                raise ConfigError(f"--{name.replace('_', '-')} changes nothing without {reader}", fix=f"add {reader}, or leave it out")

    def _check_ranges(self) -> None:
        if self.replies not in (None, *REPLIES):
            raise ConfigError(f"--replies is {self.replies!r}", expected=f"one of {', '.join(REPLIES)}")
        for name, least in (("num_samples", 2), ("num_prompts", 1), ("max_new_tokens", 1), ("num_documents", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}", expected=f"{least} or more")

"""A model that replies: the name of a run or a model enters, a speaker leaves, which writes prompts as it was trained on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from orpo.core.tokens import TokenIds
from orpo.data.example import Example
from orpo.data.rendering import as_chat
from orpo.data.row import Problem
from orpo.data.templates import Template, resolve_template
from orpo.data.tokenize import ExampleTokenizer
from orpo.engine.precision import choose_precision
from orpo.errors import ConfigError
from orpo.pipeline.evaluate import base_of, is_reward_model, model_of
from orpo.pipeline.merging import token_rows
from orpo.runs import names
from orpo.training import models
from orpo.training.config import TrainConfig, resolve_config
from orpo.training.references import adapters_off
from orpo.training.trained_adapters import on_base

Manner = Literal["chat", "transcript", "text"]
"""How a conversation becomes text: by a chat template, as 'Human: ... Assistant:', or not at all: text is continued as it stands."""

DTYPES = ("auto", "float32", "bfloat16")
BASE = "base"
"""What --vs calls the model that a run began with."""


@dataclass(frozen=True, slots=True)
class Voice:
    """What is known of a run or a model before its weights are loaded. `folder` holds them (or a Hub id names them)."""

    name: str
    folder: str
    config: TrainConfig
    is_run: bool
    tokenizer: Any
    template: Template
    manner: Manner

    @property
    def is_adapter(self) -> bool:
        """Whether `folder` holds an adapter."""
        return (Path(self.folder) / "adapter_config.json").is_file()

    @property
    def base(self) -> str:
        """The model that it began with; '' where that is not known."""
        if self.is_adapter:
            return base_of(self.folder, self.config)
        return str(self.config.model) if self.is_run else ""

    def prompt_ids(self, examples: Sequence[Example]) -> list[TokenIds | Problem]:
        """What a reply to each example follows, or why there is no such thing."""
        tokenizer = ExampleTokenizer(self.tokenizer, self.template)
        shown = [self.written(example) for example in examples]
        ids = iter(tokenizer.prompts([item for item in shown if isinstance(item, Example)]))
        return [item if isinstance(item, Problem) else next(ids) for item in shown]

    def written(self, example: Example) -> Example | Problem:
        """The example as the template takes it."""
        if self.manner != "text":
            return as_chat(example)
        if isinstance(example.prompt, str):
            return example
        if len(example.prompt) == 1 and not example.tools:
            return replace(example, prompt=example.prompt[0].content)
        what = "a conversation, or has a system text or tools"
        message = f"the prompt is {what}, but {self.name} continues plain text: it has no chat template"
        return Problem("no-template", message, example.source, fix="give prompts of one text each, or use a model with a chat template")


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice with its weights. Without `adapters` it is the base of a PEFT model that another speaker has as well."""

    name: str
    voice: Voice
    body: Any
    adapters: bool = True

    @property
    def about(self) -> str:
        """How it hears what is asked; of the base of another speaker, which model it is."""
        if self.name == BASE:
            return f"{self.voice.base}{'' if self.adapters else ', adapters off'}, asked in the same way"
        alone = ": each line is continued as text, by itself" if self.voice.manner == "text" else ""
        return f"{self.voice.template.description}{alone}"

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Inside, the body is this speaker's."""
        if self.adapters:
            yield
        else:
            with adapters_off(self.body):
                yield


def voice_of(run: str) -> Voice:
    """The voice of `run`: a run directory, a folder with a model or an adapter, or a Hub id. ConfigError for one that writes nothing."""
    voice = described(run)
    if is_reward_model(voice.folder, voice.config):
        raise ConfigError(f"{run} holds a reward model, which scores replies and writes none", fix="name a run of another objective")
    return voice


def described(run: str) -> Voice:
    """The same of any model, one that scores replies too."""
    run_dir = _run_dir(run)
    if run_dir is None or run_dir != Path(run).expanduser():
        config = resolve_config(file=run_dir / names.CONFIG).config if run_dir else TrainConfig()
        folder = models.located(run)
    else:
        folder, config = model_of(str(run_dir))
    tokenizer = models.load_tokenizer(folder)
    if not (Path(folder) / "adapter_config.json").is_file():
        models.check_tokenizer(tokenizer, models.load_shape(folder), folder, num_new=0)
    manner = _manner(tokenizer, config, run_dir)
    choice = "tokenizer" if manner == "chat" else "raw"
    template = resolve_template(tokenizer, choice, is_chat=manner != "text", is_transcript=manner == "transcript")
    return Voice(run.rstrip("/"), folder, config, run_dir is not None, tokenizer, template, manner)


def _run_dir(run: str) -> Path | None:
    """The run directory that `run` is, or that it lies in (a checkpoint, an export); None for any other model."""
    path = Path(run).expanduser()
    return next((folder for folder in (path, path.parent) if path.is_dir() and (folder / names.CONFIG).is_file()), None)


def _manner(tokenizer: Any, config: TrainConfig, run_dir: Path | None) -> Manner:
    """As the run was trained, which its data report tells; else by what the tokenizer has."""
    report = run_dir / names.DATA_REPORT if run_dir else None
    told = str(json.loads(report.read_text(encoding="utf-8")).get("template")) if report and report.is_file() else ""
    if config.template == "raw" or "no chat template" in told:
        return "transcript" if "transcript" in told else "text"
    return "chat" if getattr(tokenizer, "chat_template", None) else "text"


def generation_dtype(choice: str) -> torch.dtype:
    """The dtype of the weights: 'auto' is float32 on a CPU, and what a GPU computes fast. ConfigError for an unknown choice."""
    if choice not in DTYPES:
        raise ConfigError(f"--dtype is {choice!r}", expected=f"one of {', '.join(DTYPES)}", fix="leave it out")
    if choice == "auto" and not torch.cuda.is_available():
        return torch.float32
    return choose_precision(choice, torch.device("cuda" if torch.cuda.is_available() else "cpu")).dtype


def speaker_of(voice: Voice, dtype: torch.dtype) -> Speaker:
    """The voice with its weights in `dtype` on the device that there is; frozen weights that were trained on in 4 bits are in 4 bits."""
    if not voice.is_adapter:
        return Speaker(voice.name, voice, _placed(models.load_model(voice.folder, dtype=dtype)))
    base = models.load_model(voice.base, dtype=dtype, load_in_4bit=voice.config.load_in_4bit)
    # The rows that training began with: what the base says with adapters off is then what it said at the start.
    models.add_token_rows(base, len(voice.tokenizer), token_rows(Path(voice.folder)), seed=voice.config.seed)
    return Speaker(voice.name, voice, _placed(on_base(base, Path(voice.folder), num_tokens=len(voice.tokenizer))))


def base_speaker(speaker: Speaker, dtype: torch.dtype) -> Speaker:
    """The model that `speaker` began with, with the same tokenizer and template. ConfigError where that is not known."""
    voice = speaker.voice
    if voice.is_adapter:
        return replace(speaker, name=BASE, adapters=False)
    if not voice.base:
        raise ConfigError(f"{voice.name} is no run directory, so the model that it began with is not known", fix="name it: --vs MODEL")
    body = models.load_model(voice.base, dtype=dtype)
    known = models.load_tokenizer(voice.base).get_vocab()
    new = sorted(number for token, number in voice.tokenizer.get_vocab().items() if token not in known)
    models.add_token_rows(body, len(voice.tokenizer), new, seed=voice.config.seed)
    return Speaker(BASE, voice, _placed(body))


def _placed(body: Any) -> Any:
    return body.to("cuda" if torch.cuda.is_available() else "cpu").eval()

"""The file of replies: each reply is safe as soon as it is there, and the file itself appears whole, in the order of the prompts.

While replies are made they are kept beside it in NAME.partial; NAME.settings.json says what they were made with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orpo.core.records import Conversation, Text
from orpo.data.prompts import Prompt
from orpo.errors import ConfigError, DataError
from orpo.evaluation.generation import Reply
from orpo.runs.atomic import write_json_atomic, write_text_atomic
from orpo.runs.jsontext import plain, read_strictly, to_text
from orpo.runs.metrics import MetricsLog, read_metrics
from orpo.runs.redact import redact
from orpo.runs.storage import storage_errors

Place = tuple[int, int]
"""The number of a prompt and the number of the sample, from 0."""

Row = dict[str, Any]


class ReplyFile:
    """The replies that `path` will hold. Opening it finds those of an earlier call with the same settings.

    Raises ConfigError where the file is there already and is not of these settings: nothing is overwritten.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self._settings = path, redact(plain(settings))
        self._partial, self._told = path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}.settings.json")
        self._check()
        self.is_finished = path.exists()
        self.replies: dict[Place, Reply] = {}
        if self.is_finished:
            self._partial.unlink(missing_ok=True)  # a call was stopped right after the file was there
        if self._partial.exists():
            self.replies = {(row["step"], row["sample"]): _reply(row) for row in read_metrics(self._partial)}

    def _check(self) -> None:
        if not self._told.exists():
            if self.path.exists():
                raise ConfigError(f"{self.path} exists already", doing="writing replies", fix="give another name with --out, or remove it")
            return
        with storage_errors(self._told, "reading the settings of an earlier call"):
            earlier = _read(self._told)
        different = [name for name in {**earlier, **self._settings} if earlier.get(name) != self._settings.get(name)]
        if different:
            shown = "; ".join(f"{name} was {earlier.get(name)!r} and is {self._settings.get(name)!r}" for name in different)
            fix = f"give another name with --out, or remove {self._told} and what lies beside it"
            raise ConfigError(f"an earlier call wrote {self.path} with other settings: {shown}", doing="going on with it", fix=fix)

    def open(self) -> MetricsLog:
        """Where replies are kept until all are there."""
        with storage_errors(self.path, "writing replies"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self._told, self._settings)
        return MetricsLog(self._partial)

    def add(self, log: MetricsLog, done: Sequence[tuple[Place, Reply]]) -> None:
        """Nothing; these replies outlive whatever happens next."""
        for (number, sample), reply in done:
            log.append({"step": number, "sample": sample, "text": reply.text, "num_tokens": reply.num_tokens, "ended": reply.has_ended})
        log.sync()
        self.replies |= dict(done)

    def finish(self, text: str) -> None:
        """Nothing; the file holds `text`, and what was kept beside it is gone."""
        write_text_atomic(self.path, text)
        self._partial.unlink(missing_ok=True)
        self.is_finished = True


def _read(path: Path) -> Row:
    try:
        value = read_strictly(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"it {error}", where=str(path), doing="reading the settings of an earlier call", fix="remove it") from error
    return dict(value)


def _reply(row: Row) -> Reply:
    return Reply(row["text"], row["num_tokens"], row["ended"])


def jsonl(prompts: Sequence[Prompt], replies: Sequence[Sequence[Reply]], generator: str) -> str:
    """A row for each prompt: with its completion, or, where there are several samples, with its responses."""
    return "".join(to_text(redact(_row(*pair, generator))) + "\n" for pair in zip(prompts, replies, strict=True))


def _row(prompt: Prompt, replies: Sequence[Reply], generator: str) -> Row:
    asked = prompt.prompt if isinstance(prompt.prompt, str) else [turn.as_dict() for turn in prompt.prompt]
    if len(replies) == 1:
        said: Row = {"completion": replies[0].text, "num_tokens": replies[0].num_tokens, "has_ended": replies[0].has_ended}
    else:
        said = {
            "responses": [reply.text for reply in replies],
            "num_tokens": [reply.num_tokens for reply in replies],
            "has_ended": [reply.has_ended for reply in replies],
        }
    return {"prompt": asked, **said, "generator": generator, "source": str(prompt.source)}


def alpaca_eval(prompts: Sequence[Prompt], replies: Sequence[Sequence[Reply]], generator: str) -> str:
    """alpaca_eval's list of model outputs. DataError for a prompt that is no single instruction."""
    rows = [
        {"instruction": instruction(prompt), "output": said[0].text, "generator": generator, "dataset": _dataset(prompt)}
        for prompt, said in zip(prompts, replies, strict=True)
    ]
    return to_text(redact(rows), indent=2) + "\n"


def instruction(prompt: Prompt) -> str:
    """The one text that the prompt asks with. DataError where there are more turns than the user's one."""
    asked: Text | Conversation = prompt.prompt
    if isinstance(asked, str):
        return asked
    if len(asked) == 1:
        return asked[0].content
    raise DataError(
        f"the prompt has {len(asked)} turns ({', '.join(turn.role for turn in asked)})",
        where=str(prompt.source),
        doing="writing alpaca-eval's format",
        expected="one instruction by the user, which is all that this format has a place for",
        fix="use --format jsonl",
    )


def _dataset(prompt: Prompt) -> str:
    """The row's own `dataset`, else the name of its file."""
    named = prompt.row.get("dataset")
    return named if isinstance(named, str) else Path(prompt.source.file).stem


FORMATS: Mapping[str, Callable[[Sequence[Prompt], Sequence[Sequence[Reply]], str], str]] = {"jsonl": jsonl, "alpaca-eval": alpaca_eval}
"""What --format may name -> the text of the file."""

"""What `orpo push` sends to a model hub, and how: a finished run enters, a list of files leaves, and then those files and no others."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo.errors import ConfigError, OrpoError
from orpo.pipeline.evaluate import model_of
from orpo.report.card import PLOT
from orpo.runs import names

MODEL_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("chat_template.jinja", "*.gguf", "Modelfile", "serve.sh"),
)
"""What belongs to a model: nothing else of its folder is sent."""

CARD_FILES = (names.CARD, PLOT)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is sent: its name in the repository, its path here, its size."""

    name: str
    path: Path
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Push:
    """What would be sent where. `left_out` are files of the model's folder that are not; `notes` are for the user."""

    repository: str
    uploads: tuple[Upload, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Of all files together."""
        return sum(upload.num_bytes for upload in self.uploads)


def planned_push(run: str, repository: str, *, with_report: bool) -> Push:
    """What pushing `run` (a run directory, or a folder with a model) would send. Raises ConfigError where there is no model or no name."""
    _require_name(repository)
    model, _ = model_of(run)
    folder, run_dir = Path(model), Path(run)
    if not folder.is_dir():
        raise ConfigError(f"the folder {run} does not exist", expected="a run directory, or a folder with a model", fix="check the name")
    there = sorted(folder.iterdir())
    sent = [path for path in there if path.is_file() and _is_of(path, MODEL_FILES)]
    if not any(_is_of(path, ("*.safetensors", "*.gguf")) for path in sent):
        raise ConfigError(
            f"{folder} holds no weights", expected="*.safetensors or *.gguf", fix="push a finished run, or what `orpo export` wrote"
        )
    # PEFT leaves a card of its own beside an adapter, with nothing filled in: that of the run comes first.
    cards = next(([at / file for file in CARD_FILES] for at in (run_dir, folder) if (at / names.CARD).is_file()), [])
    uploads = [_upload(path) for path in [*sent, *cards] if path.is_file()]
    report = run_dir / names.REPORT
    if with_report and not report.is_file():
        raise ConfigError(f"{run} has no {names.REPORT}", doing="looking for what --with-report sends", fix="leave out --with-report")
    uploads += [_upload(report)] if with_report else []
    taken = {upload.path for upload in uploads}
    left_out = tuple(f"{folder.name}/{path.name}" for path in there if path not in taken)
    return Push(repository, tuple(uploads), left_out, tuple(_notes(folder, cards, with_report=with_report)))


def _is_of(path: Path, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns)


def _upload(path: Path) -> Upload:
    return Upload(path.name, path, path.stat().st_size)


def _require_name(repository: str) -> None:
    """Nothing; raises ConfigError for what is no name of a repository with its owner."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    expected, fix = "organisation/name, or user/name", "for example --to me/my-model"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--to {repository} names no repository: {error}", expected=expected, fix=fix) from error
    if "/" not in repository:
        raise ConfigError(f"--to {repository} names no owner", expected=expected, fix=fix)


def _notes(folder: Path, cards: Sequence[Path], *, with_report: bool) -> Iterable[str]:
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = str(json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path") or "")
        if Path(base).is_absolute():
            yield f"the adapter names its base by a path of this machine ({base}): nobody else can load it; push a merged export instead"
    if not cards:
        yield "there is no model card (README.md)"
    if with_report:
        yield "the report shows prompts of the data and replies to them"


def push(planned: Push, *, public: bool, api: Any = None) -> str:
    """The address of the repository, made (private unless `public`) where it is not there; all files arrive in one commit or none does.

    The token is the one that `hf auth login` or HF_TOKEN left in its usual place. Raises ConfigError without a token, and where a private
    push would go into a public repository; OrpoError without network and for what the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError  # type: ignore[attr-defined]

    api = api or HfApi()
    try:
        api.whoami()
        address = str(api.create_repo(planned.repository, private=not public, exist_ok=True))
        if not public and not api.repo_info(planned.repository).private:
            raise ConfigError(
                f"{planned.repository} exists and is public",
                doing="pushing privately; nothing was sent",
                fix="give --public, or another name",
            )
        operations = [CommitOperationAdd(upload.name, upload.path) for upload in planned.uploads]
        api.create_commit(planned.repository, operations, commit_message="Model trained with orpo")
    except LocalTokenNotFoundError as error:
        raise ConfigError(
            "no token for the hub was found",
            doing=f"pushing to {planned.repository}; nothing was sent",
            fix="run `hf auth login`, or set HF_TOKEN",
        ) from error
    except (HTTPError, OSError) as error:
        raise _refused(planned, error) from error
    return address


def _refused(planned: Push, error: Exception) -> OrpoError:
    """What the hub, or the way to it, said. An HTTP answer has a status; without one there was no answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if status is None:
        return OrpoError(
            f"the hub cannot be reached: {first_line}",
            doing=f"pushing to {planned.repository}; nothing was published",
            fix="check the network (and that HF_HUB_OFFLINE is not set), then give the same command again",
        )
    fix = (
        "see that the token may write there (`hf auth whoami`)"
        if status in (401, 403)
        else "give the same command again, or see the message"
    )
    return OrpoError(f"the hub refused ({status}): {first_line}", doing=f"pushing to {planned.repository}", fix=fix)

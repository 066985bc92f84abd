"""Where a run writes, and where it goes on: the run directory is chosen, locked, and searched for a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo.errors import CheckpointError, ConfigError, OrpoError
from orpo.runs import names
from orpo.runs.lock import RunLock
from orpo.runs.manifest import CheckpointFacts
from orpo.runs.resume import ResumePoint, changed_freely, changed_since, identity_error, resume_point
from orpo.runs.rotation import clear_leftovers
from orpo.runs.summary import read_summary
from orpo.training.checkpointing import REQUIRED

Say = Callable[[str], None]


OTHER_WEIGHTS = ("use_peft", "lora_r", "lora_target_modules")
"""Settings that decide which weights there are: a checkpoint cannot be resumed with others, whatever the user says."""


@dataclass(frozen=True, slots=True)
class Place:
    """A run directory, held by this process, and the checkpoint it goes on from (None: from the start)."""

    run_dir: Path
    resume: ResumePoint | None


def settings_hash(settings: Mapping[str, Any]) -> str:
    """A hash of what the user asked for, to recognise the same command."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def run_place(
    output_dir: str | None, *, parent: Path, prefix: str, asked: str, fresh: bool, resume_anyway: bool, say: Say
) -> Iterator[Place]:
    """The place of a run, locked while the block runs. `asked` is the settings_hash of what must match.

    With `output_dir` that folder is the run; without, an unfinished run of the same command is taken up again, or a new numbered
    folder is made. Nothing is overwritten: with `fresh`, an earlier run at `output_dir` is moved aside.
    """
    if output_dir:
        run_dir = _given(Path(output_dir), fresh=fresh, say=say)
    else:
        found = None if fresh else _unfinished(parent, prefix, asked=None if resume_anyway else asked, say=say)
        run_dir = found or names.next_run_dir(parent, prefix)
    with RunLock(run_dir):
        clear_leftovers(run_dir)
        yield Place(run_dir, _checked_resume(run_dir, say))


def _checked_resume(run_dir: Path, say: Say) -> ResumePoint | None:
    found = resume_point(run_dir, required=REQUIRED)
    if found is not None:
        for entry in found.skipped:
            say(entry.line)
        say(f"resuming from {found.path.name} in {run_dir}")
    return found


def check_same_run(found: ResumePoint, facts: CheckpointFacts, *, resume_anyway: bool, say: Say) -> None:
    """Raises CheckpointError with a table when settings, data or base model differ from the checkpoint's, unless `resume_anyway`."""
    changes = changed_since(found.manifest, facts)
    if resume_anyway and any(change.field in OTHER_WEIGHTS for change in changes):
        raise CheckpointError(
            "the weights of this checkpoint are not those of the new settings: " + ", ".join(change.field for change in changes),
            where=str(found.path),
            doing="resuming",
            fix="train anew with --fresh; --resume-anyway cannot turn one kind of weights into another",
        )
    if changes and not resume_anyway:
        raise identity_error(changes, checkpoint=found.path)
    for change in [*changes, *changed_freely(found.manifest, facts)]:
        say(f"changed since {found.path.name}: {change.field} was {change.old}, now {change.new}")


def _given(run_dir: Path, *, fresh: bool, say: Say) -> Path:
    if run_dir.is_file():
        raise ConfigError(f"output_dir {run_dir} is a file", expected="a folder, or a name that is free", fix="choose another --output-dir")
    if run_dir.is_dir() and any(path.name != names.LOCK for path in run_dir.iterdir()):
        if not _is_run(run_dir):
            raise ConfigError(
                f"output_dir {run_dir} is not empty and holds no run of orpo",
                expected="an empty folder, a new one, or an earlier run",
                fix="choose another --output-dir; nothing in it was touched",
            )
        if fresh:
            with RunLock(run_dir):  # moving a run away under its writer would lose it
                aside = _free_name(run_dir)
            run_dir.rename(aside)
            say(f"--fresh: the earlier run was moved to {aside}")
        elif resume_point(run_dir, required=REQUIRED) is None and _has_result(run_dir):
            raise ConfigError(
                f"output_dir {run_dir} holds a run with a model but without checkpoints, so it cannot go on and would be overwritten",
                fix="choose another --output-dir, or give --fresh, which moves the earlier run aside",
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def _free_name(run_dir: Path) -> Path:
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.old-{number}")).exists():
        number += 1
    return aside


def _is_run(run_dir: Path) -> bool:
    return any((run_dir / name).exists() for name in (names.RUN_ID, names.SUMMARY))


def _has_result(run_dir: Path) -> bool:
    return any((run_dir / name).exists() for name in (names.MODEL, names.ADAPTER))


def _unfinished(parent: Path, prefix: str, *, asked: str | None, say: Say) -> Path | None:
    """The newest unfinished run of the same settings (of any, when `asked` is None); None when there is none to go on with."""
    runs = sorted(parent.glob(f"{names.slug(prefix)}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    others = []
    for run_dir in runs:
        settings = _open_settings(run_dir)
        if settings is not None and asked in (None, settings):
            say(f"unfinished   {run_dir} is taken up again; --fresh starts over in a new folder")
            return run_dir
        others += [run_dir] if settings is not None else []
    if others:
        say(f"note         {others[0]} is unfinished, with other settings or data; --resume-anyway goes on with it")
    return None


def _open_settings(run_dir: Path) -> str | None:
    """The settings_hash of a run that is not done, has a valid checkpoint, and is held by no process; else None."""
    try:
        summary = read_summary(run_dir)
        if summary.status == "done" or resume_point(run_dir, required=REQUIRED) is None:
            return None
        with RunLock(run_dir):
            return str(summary.sections.get("asked"))
    except OrpoError:
        return None

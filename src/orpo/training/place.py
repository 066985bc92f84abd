"""Where a run writes, and where it goes on: the run directory is chosen, locked, and searched for a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo.errors import CheckpointError, ConfigError, OrpoError, RunLockedError
from orpo.runs import names
from orpo.runs.lock import RunLock
from orpo.runs.manifest import CheckpointFacts
from orpo.runs.resume import ResumePoint, changed_freely, changed_since, identity_error, resume_point
from orpo.runs.rotation import clear_leftovers
from orpo.runs.summary import read_summary

Say = Callable[[str], None]

REQUIRED = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
"""Files without which a run cannot go on exactly where it stopped."""


@dataclass(frozen=True, slots=True)
class Place:
    """A run directory, held by this process, and the checkpoint it goes on from (None: from the start)."""

    run_dir: Path
    resume: ResumePoint | None


def settings_hash(settings: Mapping[str, Any]) -> str:
    """A hash of what the user asked for, to recognise the same command."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def run_place(output_dir: str | None, *, parent: Path, prefix: str, asked: str, fresh: bool, say: Say) -> Iterator[Place]:
    """The place of a run, locked while the block runs. `asked` is the settings_hash of the command.

    With `output_dir` that folder is the run; without, an unfinished run of the same command is taken up again, or a new numbered
    folder is made. Nothing is overwritten: with `fresh`, an earlier run at `output_dir` is moved aside.
    """
    run_dir = (
        _given(Path(output_dir), fresh=fresh, say=say) if output_dir else _found_or_new(parent, prefix, asked=asked, fresh=fresh, say=say)
    )
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
    if changes and not resume_anyway:
        raise identity_error(changes, checkpoint=found.path)
    for change in [*changes, *changed_freely(found.manifest, facts)]:
        say(f"changed since {found.path.name}: {change.field} was {change.old}, now {change.new}")


def _given(run_dir: Path, *, fresh: bool, say: Say) -> Path:
    if run_dir.is_file():
        raise ConfigError(f"output_dir {run_dir} is a file", expected="a folder, or a name that is free", fix="choose another --output-dir")
    if run_dir.is_dir() and any(run_dir.iterdir()):
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
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def _free_name(run_dir: Path) -> Path:
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.old-{number}")).exists():
        number += 1
    return aside


def _is_run(run_dir: Path) -> bool:
    return any((run_dir / name).exists() for name in (names.RUN_ID, names.SUMMARY, names.CONFIG, names.LOCK))


def _found_or_new(parent: Path, prefix: str, *, asked: str, fresh: bool, say: Say) -> Path:
    if not fresh:
        for run_dir in sorted(parent.glob(f"{names.slug(prefix)}-*"), key=lambda path: path.stat().st_mtime, reverse=True):
            if _is_unfinished(run_dir, asked):
                say(f"the same command was not finished in {run_dir}; --fresh starts over in a new folder")
                return run_dir
    return names.next_run_dir(parent, prefix)


def _is_unfinished(run_dir: Path, asked: str) -> bool:
    """True for a run of the same command that is not done, has a checkpoint, and that no process holds."""
    try:
        summary = read_summary(run_dir)
        if summary.status == "done" or summary.sections.get("asked") != asked or resume_point(run_dir, required=REQUIRED) is None:
            return False
        with RunLock(run_dir):
            return True
    except (RunLockedError, CheckpointError, OrpoError):
        return False

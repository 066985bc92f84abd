"""Which checkpoints go: a run directory and a number to keep enter; only what this run wrote, and is as it wrote it, is deleted."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from orpo.runs.names import (
    DELETING_PREFIX,
    STAGING_PREFIX,
    TEMPORARY_PREFIX,
    WRITTEN_UNDER_LOCK,
    checkpoint_paths,
    checkpoint_step,
    deleting_name,
    is_reference_name,
)
from orpo.runs.run_id import read_run_id
from orpo.runs.storage import fsync_directory, storage_errors
from orpo.runs.verification import structural_faults


def rotate(run_dir: Path, keep: int) -> list[str]:
    """Names of the checkpoints deleted: all but the newest `keep` that hold this run's manifest. Call it after a publish.

    Not ours, so neither counted nor touched: other names, links, no manifest or another run's, and a checkpoint in
    which a name or a size differs from the manifest (a file someone put there would be lost). Contents are not
    hashed, which would read every checkpoint at every save; the newest was hashed by the publish just before.
    """
    assert keep >= 1, f"keep {keep}: the newest checkpoint is what a run resumes from"
    run_id = read_run_id(run_dir)
    if run_id is None:
        return []
    deleted = []
    with storage_errors(run_dir, "deleting old checkpoints"):
        for step, path in _own_checkpoints(run_dir, run_id)[keep:]:
            _delete(path, run_dir / deleting_name(run_id, step))
            deleted.append(path.name)
    return deleted


def clear_leftovers(run_dir: Path) -> list[str]:
    """Names of what a killed process left and was cleared: this run's staging and half-deleted directories, temporary files.

    Call it with the RunLock held: then nobody is writing them.
    """
    run_id = read_run_id(run_dir)
    with storage_errors(run_dir, "clearing what an interrupted save left"):
        leftovers = [path for path in sorted(run_dir.iterdir()) if _is_leftover(path.name, run_id)]
        for path in leftovers:
            _remove(path)
    return [path.name for path in leftovers]


def _own_checkpoints(run_dir: Path, run_id: str) -> list[tuple[int, Path]]:
    """Step and path of the checkpoints that are this run's and unchanged in names and sizes, newest first."""
    return [(step, path) for step, path in checkpoint_paths(run_dir) if not structural_faults(path, run_id=run_id)[1]]


def _delete(path: Path, doomed: Path) -> None:
    """Renames first: a crash in the middle leaves a rest under a name that no search takes for a checkpoint."""
    if doomed.exists():
        _remove(doomed)
    path.rename(doomed)
    fsync_directory(path.parent)
    _remove(doomed)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_leftover(name: str, run_id: str | None) -> bool:
    if temporary := re.fullmatch(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{8}-(.+)", name):
        return temporary.group(1) in WRITTEN_UNDER_LOCK or is_reference_name(temporary.group(1))
    prefixes = (f"{STAGING_PREFIX}{run_id}-", f"{DELETING_PREFIX}{run_id}-") if run_id else ()
    return any(name.startswith(prefix) and checkpoint_step(name.removeprefix(prefix)) is not None for prefix in prefixes)

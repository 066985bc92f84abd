"""A checkpoint is published whole or not at all: files and facts enter, `checkpoint-N/` with its manifest leaves.

One process: `publish_checkpoint`. Several ranks: rank 0 `begin_staging`; barrier; all write below the returned path;
barrier; rank 0 `publish_staging`; barrier; only then rank 0 `rotation.rotate`. All with the RunLock held by rank 0.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orpo.errors import CheckpointError, OrpoError
from orpo.runs.atomic import write_bytes_atomic
from orpo.runs.manifest import CheckpointFacts, FileEntry, Manifest, newest_readable_manifest, read_manifest, unsafe_path_reason
from orpo.runs.names import DAMAGED_PREFIX, MANIFEST, checkpoint_name, staging_name
from orpo.runs.rotation import clear_leftovers
from orpo.runs.run_id import ensure_run_id
from orpo.runs.storage import ensure_free_space, fsync_directory, storage_error, storage_errors, wrapped_storage_error
from orpo.runs.verification import entries, file_sha256, map_files, verify


@dataclass(frozen=True, slots=True)
class Published:
    """A published checkpoint. `notes` are lines to show: a damaged one moved aside, or one that was there already and was kept."""

    path: Path
    notes: tuple[str, ...] = ()


def publish_checkpoint(
    run_dir: Path, step: int, *, write_files: Callable[[Path], None], facts: CheckpointFacts, need_bytes: int = 0
) -> Published:
    """The published checkpoint of `step`, its files written by `write_files(directory)`. After a StorageError all is as before."""
    staging = begin_staging(run_dir, step, need_bytes=need_bytes)
    try:
        _write(staging, write_files, doing=f"writing {checkpoint_name(step)}", need_bytes=expected_bytes(run_dir, need_bytes))
        return publish_staging(run_dir, staging, step=step, facts=facts)
    except Exception:
        discard_staging(staging)  # its bytes may be what filled the disk
        raise


def begin_staging(run_dir: Path, step: int, *, need_bytes: int = 0) -> Path:
    """A new, empty directory for the files of `step`; what an earlier crash left is cleared.

    StorageError when less is free than `need_bytes`, or than the newest checkpoint of this run takes.
    """
    run_id = ensure_run_id(run_dir)
    clear_leftovers(run_dir)
    ensure_free_space(run_dir, expected_bytes(run_dir, need_bytes))
    staging = run_dir / staging_name(run_id, step)
    with storage_errors(staging, f"writing {checkpoint_name(step)}"):
        staging.mkdir()
    return staging


def publish_staging(run_dir: Path, staging: Path, *, step: int, facts: CheckpointFacts, required: Sequence[str] = ()) -> Published:
    """The published checkpoint: files hashed and synced, manifest written, directories synced, renamed, run directory synced.

    A valid `checkpoint-N` that holds the `required` files is never overwritten: the same point of the same run is kept (and said),
    another one is a
    CheckpointError. Anything else of that name is moved aside as `damaged-checkpoint-N`, never deleted.
    """
    run_id = ensure_run_id(run_dir)
    with storage_errors(staging, f"publishing {checkpoint_name(step)}"):
        manifest = Manifest(run_id=run_id, step=step, facts=facts.clean(), files=_synced_files(staging))
        write_bytes_atomic(staging / MANIFEST, manifest.to_bytes())
        _sync_directories(staging)
        target = run_dir / checkpoint_name(step)
        if target.is_dir() and not target.is_symlink() and not verify(target, run_id=run_id, required=required):
            return _keep_existing(target, staging, manifest)
        notes = _move_aside(target)
        staging.rename(target)
        fsync_directory(run_dir)
    return Published(target, notes)


def discard_staging(staging: Path) -> None:
    """Nothing; the staging directory is gone, as far as the disk allows. For a save that failed."""
    with suppress(OSError):  # the error of the save itself is the one to tell
        for path, info in list(entries(staging)):
            # Emptied first: torch 2.13 keeps the file of a failed save open, and a deleted open file still fills the disk.
            # One with a second name is someone else's content too, hard-linked here instead of copied.
            if stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
                os.truncate(staging / path, 0)
    shutil.rmtree(staging, ignore_errors=True)


def expected_bytes(run_dir: Path, need_bytes: int = 0) -> int:
    """Bytes a save will take: `need_bytes`, or what the newest checkpoint with a readable manifest takes if that is more."""
    manifest = newest_readable_manifest(run_dir)
    return max(need_bytes, manifest.num_bytes if manifest else 0)


def _write(staging: Path, write_files: Callable[[Path], None], *, doing: str, need_bytes: int) -> None:
    try:
        write_files(staging)
    except OrpoError:
        raise
    except Exception as error:
        # Before the first checkpoint nobody may know the need; what was written so far is the least it takes.
        need = max(need_bytes, sum(info.st_size for _, info in entries(staging)))
        if isinstance(error, OSError):
            raise storage_error(error, staging, doing=doing, need_bytes=need) from error
        if hidden := wrapped_storage_error(error, staging, doing=doing, need_bytes=need):
            raise hidden from error
        raise


def _synced_files(staging: Path) -> tuple[FileEntry, ...]:
    found = []
    for path, info in entries(staging):
        if stat.S_ISDIR(info.st_mode):
            continue
        reason = unsafe_path_reason(path) if stat.S_ISREG(info.st_mode) else "is not a plain file"
        if reason:
            raise CheckpointError(f"{path!r} {reason}", where=str(staging), doing="publishing a checkpoint", expected="plain files")
        found.append(FileEntry(path, info.st_size, ""))
    assert found, f"nothing was written to {staging}"
    hashed = map_files(found, lambda entry: FileEntry(entry.path, *file_sha256(staging / entry.path, sync=True)))
    return tuple(sorted(hashed, key=lambda entry: entry.path))


def _sync_directories(staging: Path) -> None:
    for path, info in reversed(list(entries(staging))):
        if stat.S_ISDIR(info.st_mode):
            fsync_directory(staging / path)
    fsync_directory(staging)


def _keep_existing(target: Path, staging: Path, manifest: Manifest) -> Published:
    old = read_manifest(target)
    discard_staging(staging)
    # Library versions and file bytes may differ between two saves of one point; settings, data and position may not.
    if _point(old) == _point(manifest):
        return Published(target, (f"{target.name} is there already and valid; it was kept",))
    raise CheckpointError(
        f"{target.name} is there already, valid, and from other settings",
        where=str(target),
        doing="publishing a checkpoint",
        expected="a step that was not saved yet; a valid checkpoint is never overwritten",
        fix="start with another --output-dir, or move that checkpoint away",
    )


def _point(manifest: Manifest) -> tuple[object, ...]:
    facts = manifest.facts
    return (facts.samples_seen, facts.world_size, facts.identity, facts.free, facts.data, facts.base_model)


def _move_aside(target: Path) -> tuple[str, ...]:
    """Lines to show; afterwards nothing is called `target`. A rename, because what is there may be someone's own work."""
    if not target.exists() and not target.is_symlink():
        return ()
    number, aside = 1, target.with_name(f"{DAMAGED_PREFIX}{target.name}")
    while aside.exists() or aside.is_symlink():
        number += 1
        aside = target.with_name(f"{DAMAGED_PREFIX}{target.name}-{number}")
    target.rename(aside)
    return (f"{target.name} was there and not valid; moved aside to {aside.name} (delete it when it is of no use)",)

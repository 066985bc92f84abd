"""Who a run is: a run directory enters, the 12 hex digits that its checkpoints carry leave."""

from __future__ import annotations

import secrets
from pathlib import Path

from orpo.errors import CheckpointError
from orpo.runs.atomic import write_bytes_atomic
from orpo.runs.manifest import newest_readable_manifest
from orpo.runs.names import RUN_ID, is_run_id
from orpo.runs.storage import storage_errors


def read_run_id(run_dir: Path) -> str | None:
    """The id of the run, None when it has none yet. CheckpointError when the file was damaged."""
    path = run_dir / RUN_ID
    with storage_errors(path, "reading the run's id"):
        if not path.exists():
            return None
        text = path.read_bytes().decode("ascii", errors="replace").strip()
    if not is_run_id(text):
        raise CheckpointError(
            f"the file holds {text[:40]!r}, not a run's id",
            where=str(path),
            expected="12 hex digits",
            fix="delete the file; the id is then taken from the newest checkpoint",
        )
    return text


def ensure_run_id(run_dir: Path) -> str:
    """The id of the run, made on the first call. Call it with the RunLock held.

    A directory copied without its hidden files has checkpoints and no id: the id of the newest readable manifest is
    taken then, so that the copy goes on as the same run.
    """
    found = read_run_id(run_dir)
    if found is None:
        manifest = newest_readable_manifest(run_dir)
        found = manifest.run_id if manifest else secrets.token_hex(6)
        write_bytes_atomic(run_dir / RUN_ID, f"{found}\n".encode())
    return found

"""The finished model: a folder that transformers (or PEFT) loads, there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orpo.runs import names
from orpo.runs.storage import ensure_free_space, fsync_directory, storage_errors
from orpo.training.checkpointing import save_body
from orpo.training.sharded_state import Weights


def export_model(run_dir: Path, body: Any, tokenizer: Any, *, weights: Weights | None = None) -> Path:
    """`model/`, or `adapter/` for LoRA, in `run_dir`. An earlier one is replaced only once the new one is complete and synced.

    `weights` are those of a divided body, gathered before.
    """
    target = run_dir / (names.ADAPTER if hasattr(body, "peft_config") else names.MODEL)
    need = sum(p.numel() * p.element_size() for p in body.parameters() if p.requires_grad or not hasattr(body, "peft_config"))
    with whole_folder(target, need_bytes=need) as staging:
        save_body(body, tokenizer, staging, weights=weights)
    return target


@contextmanager
def whole_folder(target: Path, *, need_bytes: int = 0) -> Iterator[Path]:
    """A folder to write into: when the block ends it is `target`, complete and synced; when the block fails `target` is as it was."""
    staging, replaced = (target.parent / f"{prefix}{target.name}" for prefix in (names.STAGING_PREFIX, names.DELETING_PREFIX))
    for leftover in (staging, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    ensure_free_space(target, need_bytes)
    try:
        with storage_errors(target, f"writing {target.name}/", need_bytes=need_bytes):
            staging.mkdir(parents=True)
            yield staging
            _sync(staging)
            if target.exists():
                target.rename(replaced)
            staging.rename(target)
            fsync_directory(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    fsync_directory(folder)

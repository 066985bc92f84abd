"""The finished model: a folder that transformers (or PEFT) loads, there whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from orpo.runs import names
from orpo.runs.storage import ensure_free_space, fsync_directory, storage_errors
from orpo.training.checkpointing import save_body

EXPORTING = ".staging-export"
REPLACED = ".deleting-export"


def export_model(run_dir: Path, body: Any, tokenizer: Any) -> Path:
    """`model/`, or `adapter/` for LoRA, in `run_dir`. An earlier one is replaced only once the new one is complete and synced."""
    target = run_dir / (names.ADAPTER if hasattr(body, "peft_config") else names.MODEL)
    staging, replaced = run_dir / EXPORTING, run_dir / REPLACED
    for leftover in (staging, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    need = sum(p.numel() * p.element_size() for p in body.parameters() if p.requires_grad or not hasattr(body, "peft_config"))
    ensure_free_space(run_dir, need)
    try:
        with storage_errors(target, f"writing {target.name}/", need_bytes=need):
            staging.mkdir()
            save_body(body, tokenizer, staging)
            _sync(staging)
            if target.exists():
                target.rename(replaced)
            staging.rename(target)
            fsync_directory(run_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    fsync_directory(folder)

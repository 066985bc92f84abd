"""How a run ended: an error enters, summary.json says so, and the error goes on as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orpo.errors import OrpoError, OutOfMemoryError
from orpo.pipeline.results import evaluation_section, write_pages
from orpo.runs import names
from orpo.runs.metrics import read_metrics
from orpo.runs.summary import RunSummary, Status, read_summary, write_summary
from orpo.training.environment import peak_memory_gib
from orpo.training.ranks import is_first


@contextmanager
def outcome_recorded(run_dir: Path, summary: RunSummary, started: float, *, advice: Callable[[], str]) -> Iterator[None]:
    """Whatever ends the block with an error ends up in summary.json and the report, before the error goes on."""
    try:
        with _memory_errors(advice):
            yield
    except BaseException as error:
        if is_first():
            try:
                _record(run_dir, error, seconds=summary.seconds + time.monotonic() - started)
            except Exception as second:  # a full disk, say: it must not hide what went wrong first
                error.add_note(f"and the summary could not be written: {second}")
        raise


def _record(run_dir: Path, error: BaseException, *, seconds: float) -> None:
    exit_code = error.exit_code if isinstance(error, OrpoError) else 130 if isinstance(error, KeyboardInterrupt) else 1
    status: Status = "interrupted" if exit_code in (130, 143) else "failed"
    ended = replace(read_summary(run_dir), status=status, exit_code=exit_code, error=str(error) or type(error).__name__)
    ended = replace(ended, finished=now(), seconds=seconds, steps=int(last_row(run_dir).get("step", 0)))
    write_summary(run_dir, ended.with_section("evaluation", evaluation_section(run_dir).get("evaluation", {})))
    write_pages(run_dir, lambda _: None)


def amend(run_dir: Path, error: OrpoError) -> None:
    """Nothing; summary and report of a run that has ended say that `error` was the reason: what wrote them knew another, or none."""
    summary = read_summary(run_dir)
    write_summary(run_dir, replace(summary, status="failed", exit_code=error.exit_code, error=str(error), finished=now()))
    write_pages(run_dir, lambda _: None)


OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says in a RuntimeError that is none of its OutOfMemoryError: the allocator of a CPU, a kernel's launch, cuBLAS's handle."""


@contextmanager
def _memory_errors(advice: Callable[[], str]) -> Iterator[None]:
    """Out of memory becomes a message with two settings that need less and compute the same."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_plain = isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)
        if is_plain and not any(said in str(error) for said in OUT_OF_MEMORY):
            raise
        raise OutOfMemoryError(
            f"out of memory: {str(error).splitlines()[0] if str(error) else 'an allocation failed'}",
            doing=f"training; peak so far {peak_memory_gib():.1f} GiB",
            fix=_fitting(advice),
        ) from error


def _fitting(advice: Callable[[], str]) -> str:
    """What `advice` says; where that cannot be worked out any more, what always needs less."""
    try:
        return advice()
    except Exception:  # whatever goes wrong here must not hide that memory ran out
        return "halve tokens_per_micro_batch, or set gradient_checkpointing: on; both leave the result the same"


def last_row(run_dir: Path) -> dict[str, Any]:
    """The last training row of metrics.jsonl; {} when there is none."""
    path = run_dir / names.METRICS
    rows = [row for row in read_metrics(path) if row["split"] == "train"] if path.exists() else []
    return rows[-1] if rows else {}


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")

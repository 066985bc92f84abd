"""The names inside a run directory and the one way to make a new one. A name enters, a path under the run directory leaves."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from orpo.errors import UserError
from orpo.runs.storage import fsync_directory, storage_errors

CONFIG = "config.resolved.yaml"
METRICS = "metrics.jsonl"
DATA_REPORT = "data_report.json"
SAMPLES = "samples.jsonl"
HELD_OUT = "held_out.jsonl"
ENVIRONMENT = "env.json"
SUMMARY = "summary.json"
CARD = "README.md"
REPORT = "report.html"
COMPARISON = "compare.json"
COMPARISON_PAGE = "comparison.html"
SIDE_BY_SIDE_PAGE = "side-by-side.html"
EVALUATIONS = "evaluations"
MODEL = "model"
ADAPTER = "adapter"
MANIFEST = "manifest.json"
LOCK = ".lock"
RUN_ID = ".run-id"

WRITTEN_UNDER_LOCK = (CONFIG, METRICS, DATA_REPORT, SAMPLES, HELD_OUT, ENVIRONMENT, SUMMARY, RUN_ID)
"""Files that only the holder of the RunLock writes. A report or a card may be written beside a running training."""

STAGING_PREFIX = ".staging-"
DELETING_PREFIX = ".deleting-"
TEMPORARY_PREFIX = ".tmp-"
DAMAGED_PREFIX = "damaged-"

# Canonical decimal: `checkpoint-007` and `checkpoint-keep-me` are someone else's folders.
_CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]{0,17})")
_RUN_ID = re.compile(r"[0-9a-f]{12}")
_REFERENCE = re.compile(r"reference-[0-9a-f]{16}\.logps")
_LONGEST_SLUG = 60


def checkpoint_name(step: int) -> str:
    """`checkpoint-N`, as transformers names it."""
    assert step >= 0, f"step {step} is negative"
    return f"checkpoint-{step}"


def checkpoint_step(name: str) -> int | None:
    """The step in a `checkpoint-N` name, None for every other name."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match.group(1)) if match else None


def checkpoint_paths(run_dir: Path) -> list[tuple[int, Path]]:
    """Step and path of everything called `checkpoint-N`, newest first. Nothing is said about what they hold."""
    with storage_errors(run_dir, "looking for checkpoints"):
        found = [(step, path) for path in run_dir.iterdir() if (step := checkpoint_step(path.name)) is not None]
    return sorted(found, reverse=True)


def is_run_id(text: str) -> bool:
    """True for the 12 hex digits that name a run."""
    return _RUN_ID.fullmatch(text) is not None


def reference_name(fingerprint: str) -> str:
    """What a table of reference log-probs is called, by the hex digits of what it is of."""
    return f"reference-{fingerprint[:16]}.logps"


def is_reference_name(name: str) -> bool:
    """True for the name of a table of reference log-probs."""
    return _REFERENCE.fullmatch(name) is not None


def staging_name(run_id: str, step: int) -> str:
    """Where a checkpoint is written before it is published. The run's id makes it ours beyond doubt when it is cleared away."""
    return f"{STAGING_PREFIX}{run_id}-{checkpoint_name(step)}"


def deleting_name(run_id: str, step: int) -> str:
    """What a checkpoint is called while it is being deleted, so that no half of one keeps its real name."""
    return f"{DELETING_PREFIX}{run_id}-{checkpoint_name(step)}"


def slug(name: str) -> str:
    """`name` as a file name: lower-case ASCII letters, digits, `.`, `_` and `-`, at most 60, never hidden; 'unnamed' for nothing."""
    ascii_text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii").lower()
    text = re.sub(r"[^a-z0-9._]+", "-", ascii_text)
    text = re.sub(r"\.{2,}", ".", text).strip("-._")[:_LONGEST_SLUG].rstrip("-._")
    return text or "unnamed"


def path_inside(run_dir: Path, name: str | Path) -> Path:
    """`run_dir / name`, which is sure to lie under the run directory after every `..` and symbolic link is followed; else UserError."""
    path = run_dir / name
    root = run_dir.resolve()
    # A name with a zero byte has no path to resolve.
    target = root if "\0" in str(name) else path.resolve()
    if target == root or not target.is_relative_to(root):
        raise UserError(
            f"{str(name)!r} leads outside the run directory",
            where=str(run_dir),
            expected="a name below the run directory, without `..` and without links that leave it",
            fix="give a plain name, or remove the link",
        )
    return path


def next_run_dir(parent: Path, prefix: str) -> Path:
    """A new, empty folder `parent/prefix-N`, N one above the highest there. Made exclusively: two processes never get the same one."""
    prefix = slug(prefix)
    with storage_errors(parent, "making a new run directory"):
        parent.mkdir(parents=True, exist_ok=True)
        number = _highest_number(parent, prefix) + 1
        while not _made_exclusively(parent / f"{prefix}-{number}"):
            number += 1
        fsync_directory(parent)
    return parent / f"{prefix}-{number}"


def _highest_number(parent: Path, prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"-([0-9]{1,18})")
    numbers = [int(match.group(1)) for path in parent.iterdir() if (match := pattern.fullmatch(path.name))]
    return max(numbers, default=0)


def _made_exclusively(path: Path) -> bool:
    try:
        path.mkdir()
    except FileExistsError:  # another process was faster, or a file or a dangling link has the name
        return False
    return True

"""Records: what an experiment measured, by which command, on what machine and when. JSON in evidence/recorded; the page is made of it."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "evidence" / "recorded"
DIGITS = 7
"""Significant digits of a recorded number: far beyond what any verdict hangs on, and a third of the bytes."""

Record = Mapping[str, Any]


def read_record(name: str) -> Record | None:
    """The record of experiment `name`; None where it was not run yet."""
    path = RECORDED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_record(name: str, content: Record, *, seconds: float, cpu_seconds: float) -> Path:
    """Where `content` was written, with what it was measured by and on beside it."""
    facts = {
        "command": f"make evidence ONLY={name}",
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
    }
    path = RECORDED / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, **_rounded(content)}, indent=1) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """The commit that is checked out, with a plus where files of it were changed; 'unknown' outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src", "scripts", "evidence/*.py"], cwd=ROOT, check=False)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed.returncode else "")


def machine() -> dict[str, Any]:
    """Versions and processor: what the numbers may depend on in their last digits, and the seconds by much."""
    from orpo.training.environment import environment

    facts = environment()
    libraries = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return {"cpu": facts["cpu"], "cores": facts["cores"], "threads": 1, "python": platform.python_version(), **libraries}


def _rounded(value: Any) -> Any:
    """`value` with its floats at DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value

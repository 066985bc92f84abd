"""What `orpo train` does, from settings to a report: check, load, train, evaluate, write. `from orpo import train` is this too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orpo.pipeline.run import Run


def train(*, config: str | Path | None = None, **settings: Any) -> Run:
    """Train, as `orpo train` does, and return the finished run.

    `settings` are the options of `orpo train` with underscores (model, data, beta, ...); `config` is a YAML file that they override.
    With num_processes, processes of their own train; they do not run the caller's script again, so it needs no `if __name__ ==` guard.
    Raises the errors of `orpo.errors`; prints what the command prints.
    """
    from orpo.pipeline.launch import launched
    from orpo.training.config import resolve_config

    return launched(resolve_config(file=Path(config) if config else None, flags=settings))

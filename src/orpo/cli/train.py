"""`orpo train`: settings to a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def run_train(config: str | None, flags: dict[str, Any]) -> None:
    """Trains, and says where the result lies and how to look at it."""
    from orpo.training.config import resolve_config

    resolved = resolve_config(file=Path(config) if config else None, flags=flags)
    from orpo.pipeline.launch import launched
    from orpo.training.ranks import end_ranks, is_first

    run = launched(resolved)
    end_ranks()
    if is_first():
        from rich.console import Console

        Console(soft_wrap=True).print(f"model        {run.model_dir}", markup=False, highlight=False)

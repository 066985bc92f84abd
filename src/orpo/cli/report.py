"""`orpo report`: pages from what was recorded; nothing is trained or measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer


def run_report(runs: Sequence[str], *, out: str | None) -> None:
    """Writes the page and prints its path."""
    from orpo.report.rewriting import write_page

    typer.echo(str(write_page([Path(run) for run in runs], out=Path(out) if out else None)))

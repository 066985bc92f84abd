"""`orpo env`: a block to paste into an issue."""

from __future__ import annotations

import typer


def run_env() -> None:
    """Prints versions and hardware, one per line."""
    from orpo.training.environment import environment

    facts = environment()
    libraries = facts.pop("libraries")
    facts.pop("command")
    for name, value in {**facts, **libraries}.items():
        typer.echo(f"{name:<13}{', '.join(value) if isinstance(value, list) else value}")

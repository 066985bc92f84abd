"""`orpo init`: a commented configuration to start from."""

from __future__ import annotations

from pathlib import Path

import typer

from orpo.errors import ConfigError


def run_init(path: str) -> None:
    """Writes the file; an existing one is never overwritten."""
    from orpo.runs.atomic import write_text_atomic
    from orpo.training.config_template import init_yaml

    target = Path(path)
    if target.exists():
        raise ConfigError(f"{path} exists already", doing="writing a configuration", fix="give another name: orpo init other.yaml")
    if not target.parent.is_dir():
        raise ConfigError(f"the folder {target.parent} does not exist", doing="writing a configuration", fix="make it first")
    write_text_atomic(target, init_yaml())
    typer.echo(f"wrote {path}; set model and data in it, then: orpo train {path}")

"""`orpo init`: a commented configuration to start from."""

from __future__ import annotations

from pathlib import Path

import typer

from orpo.errors import ConfigError


def run_init(path: str, *, recipe: str | None = None) -> None:
    """Writes the file, the settings people change first or a recipe; an existing one is never overwritten."""
    from orpo.runs.atomic import write_text_atomic
    from orpo.training.config_fields import FIELDS
    from orpo.training.config_template import init_yaml
    from orpo.training.config_values import Unfit, converted
    from orpo.training.recipes import recipe_text

    try:
        text = init_yaml() if recipe is None else recipe_text(converted(FIELDS["recipe"], recipe))
    except Unfit as unfit:
        raise ConfigError(f"there is no recipe {recipe!r}", where="--recipe", expected=unfit.expected, fix=unfit.fix) from None
    target = Path(path)
    if target.exists():
        raise ConfigError(f"{path} exists already", doing="writing a configuration", fix="give another name: orpo init other.yaml")
    if not target.parent.is_dir():
        raise ConfigError(f"the folder {target.parent} does not exist", doing="writing a configuration", fix="make it first")
    write_text_atomic(target, text)
    typer.echo(f"wrote {path}; set model and data in it, then: orpo train {path}")

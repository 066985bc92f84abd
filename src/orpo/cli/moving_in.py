"""`orpo import`: a configuration of another tool to an orpo.yaml."""

from __future__ import annotations

from pathlib import Path

import typer

from orpo.errors import ConfigError


def run_import(file: str, *, out: str | None, force: bool, tool: str | None, trainer: str | None, processes: int) -> None:
    """Prints the orpo.yaml, or writes it to `out`; on stderr, which tool it was and what did not carry over."""
    from orpo.moving_in.foreign_file import read_foreign
    from orpo.moving_in.recognised import named, recognised
    from orpo.moving_in.translation import moved_in
    from orpo.moving_in.written import completed, not_carried, recognition, yaml_text
    from orpo.training.config_file import Setting

    target = _free(Path(out), force=force) if out else None
    found = read_foreign(file)
    found_tool, marks = (named(tool), (f"--from {tool}",)) if tool else recognised(found, file=file)
    if trainer is not None:
        found = (*found, Setting("trainer", trainer, "flag --trainer"))
    moved = completed(moved_in(found_tool, found, processes=processes, known={"file_folder": str(Path(file).parent)}))
    moved.resolved()
    text = yaml_text(moved, file=file, told_by=marks)
    typer.echo(f"{file}: {recognition(moved, marks)}", err=True)
    if found_tool.key == "trl" and trainer is None:
        typer.echo(f"taken to be for TRL's trainer of {moved.settings['objective'].value}; --trainer names another", err=True)
    for line in not_carried(moved):
        typer.echo(line, err=True)
    if target is None:
        typer.echo(text, nl=False)
        return
    from orpo.runs.atomic import write_text_atomic

    write_text_atomic(target, text)
    typer.echo(f"wrote {target}; look at it first: orpo plan {target}", err=True)


def _free(target: Path, *, force: bool) -> Path:
    if target.exists() and not force:
        raise ConfigError(f"{target} exists already", doing="writing a configuration", fix="give another name, or --force")
    if not target.parent.is_dir():
        raise ConfigError(f"the folder {target.parent} does not exist", doing="writing a configuration", fix="make it first")
    return target

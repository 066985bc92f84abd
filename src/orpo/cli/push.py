"""`orpo push`: a finished run to a model hub, after showing what would be sent."""

from __future__ import annotations

import sys

import typer

from orpo.errors import ConfigError


def run_push(run: str, *, to: str, public: bool, yes: bool, with_report: bool) -> None:
    """Lists every file with its size, asks, and sends them in one commit. Sends nothing unless the answer is yes."""
    from orpo.pipeline.push import planned_push, push
    from orpo.runs.storage import readable_size

    planned = planned_push(run, to, with_report=with_report)
    typer.echo(f"to           {to} ({'public' if public else 'private'})")
    for upload in planned.uploads:
        typer.echo(f"  {upload.num_bytes:>14,}  {upload.name}")
    typer.echo(f"  {planned.num_bytes:>14,}  bytes in {len(planned.uploads)} files ({readable_size(planned.num_bytes).partition(' (')[0]})")
    if planned.left_out:
        typer.echo(f"not sent     {', '.join(planned.left_out)}")
    for note in planned.notes:
        typer.echo(f"note         {note}")
    if not yes and not sys.stdin.isatty():
        raise ConfigError("nobody is there to ask, and --yes was not given", doing=f"pushing to {to}; nothing was sent", fix="add --yes")
    if not yes and not typer.confirm(f"Send these files to {to}?"):
        typer.echo("nothing was sent")
        return
    typer.echo(f"sent         {push(planned, public=public)}")

"""`orpo train`: a command whose flags are the settings of TrainConfig and the options of the objectives, each written once, there."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from orpo.training.config_flags import Flag, flag_table

SUMMARY = """Align a model with preference pairs: `orpo train --model MODEL --data pairs.jsonl`, or `orpo train orpo.yaml`.

A flag overrides the file. The same command again goes on where it stopped."""

METAVARS = {int: "INT", float: "NUMBER", str: "TEXT"}


def add_train_command(app: typer.Typer) -> None:
    """Nothing; `app` has the command `train`, built from the settings' own table."""

    def train(config: Any = None, **flags: Any) -> None:
        from orpo.cli.train import run_train

        given = {name: value for name, value in flags.items() if value is not None and value != []}
        run_train(config, given)

    parameters = [config_parameter(), *(flag_parameter(flag) for flag in flag_table())]
    train.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    train.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command("train", help=SUMMARY)(train)


def config_parameter() -> inspect.Parameter:
    annotation = Annotated[str | None, typer.Argument(help="A YAML file, as `orpo init` writes it.", show_default=False)]
    return inspect.Parameter("config", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)


def flag_parameter(flag: Flag) -> inspect.Parameter:
    """The option of one setting. Its default is None, 'not given', so that a file is only overridden by what was typed."""
    declaration = f"{flag.flag}/{flag.off_flag}" if flag.off_flag else flag.flag
    option = typer.Option(
        declaration,
        help=_help(flag),
        metavar="" if flag.type is bool else METAVARS[flag.type],
        rich_help_panel=flag.group,
        show_default=False,
        hidden=flag.is_hidden,
    )
    kind = list[flag.type] if flag.is_list else flag.type  # type: ignore[name-defined]
    return inspect.Parameter(flag.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])


def _help(flag: Flag) -> str:
    """What the setting does, its choices, and its default where there is one to tell."""
    parts = [flag.help, f"One of: {', '.join(flag.choices)}." if flag.choices else ""]
    return " ".join([*filter(None, parts), f"[dim](default {flag.default_text})[/dim]" if flag.default_text else ""]).strip()

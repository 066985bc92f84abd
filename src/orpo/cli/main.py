"""`orpo`: the commands, and how an error becomes a message and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orpo.cli.options import add_train_command
from orpo.cli.plan import add_plan_command
from orpo.errors import OrpoError

app = typer.Typer(
    name="orpo",
    help="Align a language model with preference pairs in one stage, without a reference model.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

WELCOME = """\
new here?     orpo demo                                  aligns a built-in model in about a minute, offline
have pairs?   orpo check pairs.jsonl                     names their shape, finds what is wrong with them
ready?        orpo train --model MODEL --data pairs.jsonl
everything    orpo --help"""


@app.callback(invoke_without_command=True)
def welcome(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Align a language model with preference pairs in one stage, without a reference model."""
    if version:
        from orpo import __version__

        typer.echo(f"orpo {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(WELCOME)


@app.command()
def demo(
    objective: Annotated[str, typer.Option(help="orpo, or sft to see the rejected answers rise with the chosen.")] = "orpo",
    seed: Annotated[int, typer.Option(help="Seed of data order and data.")] = 0,
    output_dir: Annotated[str | None, typer.Option(help="The run directory itself (default: a new one under runs/).")] = None,
) -> None:
    """Align the built-in model on the built-in world: about a minute on 2 CPU cores, without network."""
    from orpo.cli.demo import run_demo

    run_demo(objective=objective, seed=seed, output_dir=output_dir)


@app.command()
def check(
    data: Annotated[list[str], typer.Argument(help="Files, folders, or Hub ids (org/name, org/name@revision, org/name:split).")],
    model: Annotated[str | None, typer.Option(help="Also tokenize every row as this model would see it.")] = None,
    template: Annotated[str, typer.Option(help="auto, tokenizer, chatml, raw, or a .jinja file (with --model).")] = "auto",
    max_length: Annotated[int | None, typer.Option(help="Longest row in tokens, as in training (with --model).")] = None,
    overlong: Annotated[str, typer.Option(help="drop, cut-completion, or error (with --model).")] = "drop",
    columns: Annotated[str | None, typer.Option(help="Map columns: prompt=question,chosen=good,rejected=bad.")] = None,
    max_bad_rows: Annotated[int, typer.Option(help="Rows that may be wrong before this is an error.")] = 0,
    pair_labelled: Annotated[bool, typer.Option("--pair-labelled", help="Pair labelled rows that share a prompt.")] = False,
    objective: Annotated[str, typer.Option("--objective", help="What is checked is what this objective reads.")] = "orpo",
    preset: Annotated[str | None, typer.Option(help="Mark what this preset of orpo trains (with --show or --row).")] = None,
    eval_data: Annotated[list[str] | None, typer.Option(help="Held-out data: checked too, and compared with the training data.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Show this many rows as the model sees them (without --model: their text).")] = 0,
    row: Annotated[list[str] | None, typer.Option(help="Show the row at this place: FILE:LINE, or a line number.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Name the shape of preference data, list what is wrong with it and what that does to training. Trains nothing, writes nothing."""
    from orpo.cli.check import CheckOptions, run_check

    options = CheckOptions(
        data=data,
        eval_data=eval_data or (),
        model=model,
        template=template,
        max_length=max_length,
        overlong=overlong,
        columns=columns,
        max_bad_rows=max_bad_rows,
        pair_labelled=pair_labelled,
        objective=objective,
        preset=preset,
        show=show,
        rows=row or (),
        as_json=json,
    )
    run_check(options)


@app.command()
def init(
    path: Annotated[str, typer.Argument(help="Where to write it.")] = "orpo.yaml",
) -> None:
    """Write a commented configuration to start from."""
    from orpo.cli.init import run_init

    run_init(path)


add_train_command(app)
add_plan_command(app)


@app.command("eval")
def evaluate(
    run: Annotated[str, typer.Argument(help="A run directory, or a model folder.")],
    data: Annotated[list[str], typer.Option(help="Held-out pairs.")],
    columns: Annotated[str | None, typer.Option(help="Map columns: prompt=question,chosen=good,rejected=bad.")] = None,
    template: Annotated[str | None, typer.Option(help="As in training, unless given.")] = None,
    max_length: Annotated[int | None, typer.Option(help="As in training, unless given.")] = None,
    require: Annotated[list[str] | None, typer.Option(help='A gate such as "accuracy>0.6"; exit 4 when it fails.')] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Accuracy, NLL and margins on held-out pairs, with 95 % intervals."""
    from orpo.cli.evaluate import run_evaluate

    run_evaluate(run, data, columns=columns, template=template, max_length=max_length, require=require or [], as_json=json)


@app.command()
def env() -> None:
    """Print versions and hardware, to paste into an issue."""
    from orpo.cli.environment import run_env

    run_env()


def main() -> None:
    """Runs the command line; exits with the code of the error tree."""
    try:
        app()
    except OrpoError as error:
        _fail(str(error), error.exit_code)


def _fail(message: str, exit_code: int) -> None:
    """Prints `message` on stderr, secrets redacted and control characters escaped, and exits."""
    from orpo.runs.redact import redact_text

    shown = "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in redact_text(message))
    print(shown, file=sys.stderr)  # noqa: T201
    sys.exit(exit_code)

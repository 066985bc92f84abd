"""`orpo`: the commands, and how an error becomes a message and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orpo.cli.eval_options import add_eval_command
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
    recipe: Annotated[str | None, typer.Option(help="A recipe that is shipped, such as llama3-orpo-qlora.")] = None,
) -> None:
    """Write a commented configuration to start from."""
    from orpo.cli.init import run_init

    run_init(path, recipe=recipe)


@app.command("import")
def move_in(
    file: Annotated[str, typer.Argument(help="A YAML or JSON file of TRL, LLaMA-Factory or Axolotl.")],
    out: Annotated[str | None, typer.Option(help="Where to write the orpo.yaml (default: print it).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file that --out names.")] = False,
    tool: Annotated[str | None, typer.Option("--from", help="trl, llama-factory or axolotl, where the file does not tell.")] = None,
    trainer: Annotated[str | None, typer.Option(help="The trainer of TRL, where the file does not tell: orpo, dpo, kto, sft, cpo.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many processes it was launched on: a step had that many batches.")] = 1,
) -> None:
    """Turn a configuration of TRL, LLaMA-Factory or Axolotl into an orpo.yaml, and say what means something else here."""
    from orpo.cli.moving_in import run_import

    run_import(file, out=out, force=force, tool=tool, trainer=trainer, processes=processes)


add_train_command(app)
add_plan_command(app)


add_eval_command(app)


@app.command()
def chat(
    run: Annotated[str, typer.Argument(help="A run directory, or a model folder.")],
    vs: Annotated[str | None, typer.Option(help="base (the model that the run began with), or another run or model.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that have this share of the probability.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="The longest reply.")] = 512,
    seed: Annotated[int, typer.Option(help="Of the random numbers that tokens are drawn by.")] = 0,
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    dtype: Annotated[str, typer.Option(help="Of the weights: auto, float32 or bfloat16.")] = "auto",
) -> None:
    """Talk to a run or a model, beside its base or another one. From a pipe, each line is a question."""
    from orpo.cli.chat import run_chat

    run_chat(run, versus=vs, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed, system=system, dtype=dtype)


@app.command()
def generate(
    run: Annotated[str, typer.Argument(help="A run directory, or a model folder.")],
    prompts: Annotated[str, typer.Option(help="A file with a column prompt, instruction or messages, preference data, or .txt by lines.")],
    out: Annotated[str, typer.Option(help="The file to write.")],
    format: Annotated[str, typer.Option(help="jsonl, or alpaca-eval.")] = "jsonl",
    limit: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    columns: Annotated[str | None, typer.Option(help="Map columns: prompt=question.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that have this share of the probability.")] = 1.0,
    num_samples: Annotated[int, typer.Option(help="Replies to each prompt.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="The longest reply.")] = 512,
    seed: Annotated[int, typer.Option(help="Of the random numbers that tokens are drawn by.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Replies at a time; they do not depend on it.")] = 16,
    dtype: Annotated[str, typer.Option(help="Of the weights: auto, float32 or bfloat16.")] = "auto",
) -> None:
    """Write replies to the prompts of a file. The same command again goes on where it was stopped."""
    from orpo.cli.generate import run_generate

    run_generate(
        run,
        prompts=prompts,
        out=out,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        num_samples=num_samples,
        batch_size=batch_size,
        dtype=dtype,
        columns=columns,
        limit=limit,
        file_format=format,
    )


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Run directories, or the folder of one comparison.")],
    out: Annotated[str | None, typer.Option(help="Write the page to this .html file.", show_default=False)] = None,
) -> None:
    """Write the page of a run or of a comparison anew, or put several runs side by side on one page."""
    from orpo.cli.report import run_report

    run_report(runs, out=out)


@app.command()
def compare(
    config: Annotated[str, typer.Argument(help="A YAML file, such as recipes/compare-world.yaml.")],
    output_dir: Annotated[str | None, typer.Option(help="The folder of the comparison (default: a new one under runs/).")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; what is in the folder is moved aside.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Stages at a time, in place of the file's.")] = None,
) -> None:
    """Compare objectives, and chains of them, on the same data, budget and seeds, each tuned with the same care."""
    from orpo.cli.compare import run_compare

    run_compare(config, output_dir=output_dir, fresh=fresh, jobs=jobs)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run directory, or a folder with a model or an adapter.")],
    to: Annotated[str, typer.Option(help="merged (for transformers), gguf (for llama.cpp), ollama, or vllm.")],
    out: Annotated[str | None, typer.Option(help="The folder to write (default: one named after --to in the run directory).")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: bfloat16 or float32.")] = "bfloat16",
    base: Annotated[str, typer.Option(help="Merge onto the base in full, or onto its 4bit weights written out (QLoRA).")] = "full",
) -> None:
    """Write a finished run for other programs. An adapter is merged, and its logits are compared before anything is published."""
    from orpo.cli.export import run_export

    run_export(run, to=to, out=out, dtype=dtype, base=base)


@app.command()
def push(
    run: Annotated[str, typer.Argument(help="A run directory, or a folder that `orpo export` wrote.")],
    to: Annotated[str, typer.Option(help="organisation/name on the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository public; private otherwise.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    with_report: Annotated[bool, typer.Option("--with-report", help="Send report.html as well: it shows prompts and replies.")] = False,
) -> None:
    """Send a finished model to the Hugging Face Hub, after listing every file. Never data; training never sends anything."""
    from orpo.cli.push import run_push

    run_push(run, to=to, public=public, yes=yes, with_report=with_report)


@app.command()
def env() -> None:
    """Print versions and hardware, to paste into an issue."""
    from orpo.cli.environment import run_env

    run_env()


def main() -> None:
    """Runs the command line; exits with the code of the error tree."""
    try:
        app(prog_name="orpo")  # and not `python -m orpo`, however it was started
    except OrpoError as error:
        _fail(str(error), error.exit_code)


def _fail(message: str, exit_code: int) -> None:
    """Prints `message` on stderr, secrets redacted and control characters escaped, and exits."""
    from orpo.runs.redact import redact_text

    shown = "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in redact_text(message))
    print(shown, file=sys.stderr)  # noqa: T201
    sys.exit(exit_code)

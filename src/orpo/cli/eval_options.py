"""The flags of `orpo eval`."""

from __future__ import annotations

from typing import Annotated

import typer

PAIRS, REPLIES, BENCHMARKS = "Held-out pairs", "Replies", "Benchmarks"


def add_eval_command(app: typer.Typer) -> None:
    """Nothing; `app` has the command."""
    app.command("eval")(evaluate)


def evaluate(
    run: Annotated[str, typer.Argument(help="A run directory, or a model folder.")],
    data: Annotated[list[str] | None, typer.Option(help="Held-out pairs.", rich_help_panel=PAIRS)] = None,
    columns: Annotated[str | None, typer.Option(help="Map columns: prompt=question,chosen=good,rejected=bad.")] = None,
    template: Annotated[str | None, typer.Option(help="As in training, unless given.", rich_help_panel=PAIRS)] = None,
    max_length: Annotated[int | None, typer.Option(help="As in training, unless given.", rich_help_panel=PAIRS)] = None,
    vs: Annotated[str | None, typer.Option(help="Win rate against base, a run, or a model.", rich_help_panel=REPLIES)] = None,
    judge: Annotated[
        str | None, typer.Option(help="A reward model (a run or a folder), or oracle in the built-in world.", rich_help_panel=REPLIES)
    ] = None,
    diversity: Annotated[
        bool, typer.Option("--diversity", help="How alike sampled replies are, per prompt and across.", rich_help_panel=REPLIES)
    ] = False,
    num_samples: Annotated[int | None, typer.Option(help="Of each prompt, for --diversity: 4.", rich_help_panel=REPLIES)] = None,
    prompts: Annotated[
        list[str] | None, typer.Option(help="Files of prompts; those of --data, unless given.", rich_help_panel=REPLIES)
    ] = None,
    num_prompts: Annotated[int | None, typer.Option(help="So many, spread evenly; all, unless given.", rich_help_panel=REPLIES)] = None,
    replies: Annotated[str | None, typer.Option(help="For --vs: greedy, or sampled (temperature 1).", rich_help_panel=REPLIES)] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest reply: 256; of a benchmark, what its task says.", rich_help_panel=REPLIES)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of sampled replies: 0.", rich_help_panel=REPLIES)] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks of lm-eval, such as ifeval,gsm8k.", rich_help_panel=BENCHMARKS)] = None,
    task_data: Annotated[
        list[str] | None, typer.Option(help="TASK=FOLDER: a copy of its data set, for no network.", rich_help_panel=BENCHMARKS)
    ] = None,
    num_documents: Annotated[int | None, typer.Option(help="So many of each task; all, unless given.", rich_help_panel=BENCHMARKS)] = None,
    require: Annotated[list[str] | None, typer.Option(help='A gate such as "accuracy>0.6"; exit 4 when it fails.')] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Measure a model: accuracy on held-out pairs, win rate by a judge, diversity of replies, benchmarks; with 95 % intervals and gates."""
    from orpo.cli.evaluate import run_evaluate
    from orpo.pipeline.eval_config import EvalConfig

    config = EvalConfig(
        run=run,
        data=tuple(data or ()),
        columns=columns,
        template=template,
        max_length=max_length,
        vs=vs,
        judge=judge,
        diversity=diversity,
        num_samples=num_samples,
        prompts=tuple(prompts or ()),
        num_prompts=num_prompts,
        replies=replies,
        max_new_tokens=max_new_tokens,
        seed=seed,
        tasks=tuple(name.strip() for name in tasks.split(",") if name.strip()) if tasks else (),
        task_data=tuple(task_data or ()),
        num_documents=num_documents,
    )
    run_evaluate(config, require=require or [], as_json=json)

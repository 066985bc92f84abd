"""`orpo generate`: replies to the prompts of a file, with a progress bar."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def run_generate(
    run: str,
    *,
    prompts: str,
    out: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    num_samples: int,
    batch_size: int,
    dtype: str,
    columns: str | None,
    limit: int | None,
    file_format: str,
) -> None:
    """Writes the replies, and says how many there are and how fast they came."""
    from orpo.data.preview import visible
    from orpo.evaluation.sampling import Sampling
    from orpo.pipeline.generate import Asked, generate

    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    asked = Asked(sampling, num_samples, batch_size, dtype, columns, limit, file_format)
    console = Console(stderr=True, soft_wrap=True)
    columns_shown = (TextColumn("replies"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns_shown, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("replies", total=None, start=False, rate="")
        num_tokens = 0

        def tick(done: int, total: int, tokens: int) -> None:
            nonlocal num_tokens
            if not tokens:  # the weights are there: from here on time counts
                progress.start_task(task)
            num_tokens += tokens
            seconds = progress.tasks[0].elapsed or 0.0
            rate = f"{num_tokens / seconds:,.0f} tok/s" if num_tokens and seconds else ""
            progress.update(task, completed=done, total=total, rate=rate)

        made = generate(run, prompts, out, asked, say=lambda text: console.print(visible(text), markup=False, highlight=False), tick=tick)
    rate = f", {made.num_tokens:,} tokens, {made.num_tokens / made.seconds:,.0f} tok/s" if made.num_tokens else ""
    typer.echo(f"wrote        {made.path}: {made.num_replies:,} replies to {made.num_prompts:,} prompts, {made.num_made:,} new{rate}")
    if made.num_cut:
        typer.echo(f"note         {made.num_cut:,} replies were cut, at --max-new-tokens {max_new_tokens:,} or at the last position")
    if made.num_without_room:
        typer.echo(f"note         {made.num_without_room:,} prompts leave the model no position for a reply, which is empty")

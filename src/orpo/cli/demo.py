"""`orpo demo`: a run on the built-in world, and what changed, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text


def run_demo(*, objective: str, seed: int, output_dir: str | None) -> None:
    """Trains and shows replies before and after, the figures with their intervals, and where to go on."""
    from orpo.pipeline import demo
    from orpo.pipeline.run import people_console

    console = people_console()
    run = demo.run_demo(objective=objective, seed=seed, output_dir=output_dir, console=console)
    console.print()
    if "oracle" in run.summary.sections:  # a reward model replies nothing
        console.print(samples_table(run.run_dir))
    console.print(figures_table(run.summary.sections))
    console.print(Text(f"next         {' | '.join(next_commands(objective, run.run_dir))}"))


def next_commands(objective: str, run_dir: Path) -> list[str]:
    """What to try after the demo. A reward model has nothing to say."""
    other = "orpo demo" if objective != "orpo" else "orpo demo --objective sft"
    return [*([f"orpo chat {run_dir} --vs base"] if objective != "reward" else []), other, "orpo check your-pairs.jsonl"]


def samples_table(run_dir: Path, *, num: int = 3) -> Table:
    """The first replies that changed, before and after."""
    from orpo.runs import names
    from orpo.runs.metrics import read_metrics

    rows = [row for row in read_metrics(run_dir / names.SAMPLES) if row["before"] != row["after"]][:num]
    table = Table(
        title="Before and after, on held-out prompts", title_justify="left", box=None, pad_edge=False, padding=(0, 2), show_edge=False
    )
    for header in ("prompt", "before", "after"):
        table.add_column(header, header_style="dim", overflow="fold", ratio=1)
    for row in rows:
        table.add_row(Text(question(row["prompt"])), Text(row["before"], style="red"), Text(row["after"], style="green"))
    return table


def question(prompt: str) -> str:
    """The last turn of a ChatML prompt, without its control tokens."""
    return prompt.rsplit("<|im_start|>user", 1)[-1].split("<|im_end|>")[0].strip()


def figures_table(sections: Mapping[str, Any]) -> Table:
    """Held-out accuracy and the oracle's score, before and after, with 95 % intervals, and mean log-probs."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for header in ("", "before", "after"):
        table.add_column(header, header_style="dim", justify="left" if not header else "right")
    before, after = sections["evaluation"]["before"], sections["evaluation"]["after"]
    if "accuracy" in before:  # not of an objective on single answers
        table.add_row(
            "held-out accuracy", *(interval(part["accuracy"], part["accuracy_low"], part["accuracy_high"]) for part in (before, after))
        )
    if "oracle" in sections:
        oracle = sections["oracle"]
        table.add_row(
            "oracle's score of replies", *(interval(oracle[w]["score"], oracle[w]["low"], oracle[w]["high"]) for w in ("before", "after"))
        )
    for name, text in (("logps/chosen", "log p chosen"), ("logps/rejected", "log p rejected")):
        if name in before:
            table.add_row(text, f"{before[name]:.2f}", f"{after[name]:.2f}")
    return table


def interval(value: float, low: float, high: float) -> str:
    """A share with its 95 % interval, in per cent."""
    return f"{value:.0%} ({low * 100:.0f}-{high * 100:.0f})"

"""What a person sees while training: a live table on a terminal, plain lines anywhere else. Rows enter, nothing leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orpo.core.intervals import wilson_interval
from orpo.runs.metrics import NON_FINITE, finite_row

SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the live table: the metric, its name for people, and what to make of it."""

    metric: str
    name: str
    meaning: str


LINES = (
    Line("loss", "loss", ""),
    Line("nll_loss", "  NLL", "learns the chosen answers"),
    Line("odds_part", "  odds part", "pushes the rejected away"),
    Line("logps/chosen", "log p chosen", "up is good"),
    Line("logps/rejected", "log p rejected", "with SFT alone it rises too"),
    Line("rewards/accuracies", "pairs told apart", "chosen likelier than rejected, per token"),
)


def is_live(console: Console) -> bool:
    """True when `console` is a terminal where a live table is welcome: not under CI, not with NO_COLOR or TERM=dumb."""
    return console.is_terminal and not console.is_dumb_terminal and not (os.environ.get("CI") or os.environ.get("NO_COLOR"))


def sparkline(values: list[float], *, width: int = 16) -> str:
    """The last values as blocks of eight heights, thinned to `width` by taking means of equal runs; '' for fewer than two."""
    if len(values) < 2:
        return ""
    if len(values) > width:
        cuts = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(SPARKS[min(7, int(8 * (value - low) / span))] for value in values)


@dataclass(slots=True)
class TrainingView:
    """Shows rows of metrics.jsonl as they come. Use as a context manager around training."""

    console: Console
    max_steps: int
    first_step: int = 0
    beta: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)
    held_out: list[tuple[float, int]] = field(default_factory=list)
    held_out_history: dict[str, list[float]] = field(default_factory=dict)
    step: int = 0
    tokens_per_second: float = 0.0
    started: float = field(default_factory=time.monotonic)
    live: Live | None = None

    def __enter__(self) -> TrainingView:
        self.step = self.first_step
        if is_live(self.console):
            self.live = Live(self.table(), console=self.console, refresh_per_second=4, transient=False)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.update(self.table(), refresh=True)
            self.live.stop()

    def say(self, text: str) -> None:
        """A line of text above the table (or among the plain lines)."""
        self.console.print(text, markup=False, highlight=False)

    def show(self, row: Mapping[str, Any]) -> None:
        """A new row of metrics.jsonl. Figures that are not finite are named, and kept out of the table and its trends."""
        row = finite_row(row)
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        if "log_odds_ratio" in numbers and self.beta:
            numbers["odds_part"] = -self.beta * numbers["log_odds_ratio"]
        if row["split"] == "eval":
            if "rewards/accuracies" in numbers:
                self.held_out.append((numbers["rewards/accuracies"], int(numbers["num_pairs"])))
            self._remember(self.held_out_history, numbers)
        else:
            self.step = int(row["step"])
            # Both count from the run's first step, also after a resume.
            self.tokens_per_second = numbers.get("num_tokens", 0) / max(numbers.get("seconds", 0.0), 1e-9)
            self._remember(self.history, numbers)
        if self.live:
            if row.get(NON_FINITE):
                self.say(f"step {row['step']}: not finite: {', '.join(row[NON_FINITE])}")
            self.live.update(self.table())
        else:
            self.say(plain_line(row, numbers, self.max_steps))

    def _remember(self, history: dict[str, list[float]], numbers: Mapping[str, float]) -> None:
        for line in LINES:
            if line.metric in numbers:
                history.setdefault(line.metric, []).append(numbers[line.metric])

    def table(self) -> RenderableType:
        """The live table: progress, then each metric now, at the start, and its trend; held out, where training does not compute it."""
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        for header, justify in (("", "left"), ("now", "right"), ("start", "right"), ("trend", "left"), ("", "left")):
            table.add_column(header, justify=justify, header_style="dim")  # type: ignore[arg-type]
        for line in LINES:
            values, name = self.history.get(line.metric), line.name
            if not values and self.history and line.metric != "rewards/accuracies":
                values, name = self.held_out_history.get(line.metric), f"{line.name}, held out"
            if values:
                table.add_row(name, f"{values[-1]:.4g}", f"{values[0]:.4g}", sparkline(values), Text(line.meaning, style="dim"))
        if self.held_out:
            (now, num), (start, _) = self.held_out[-1], self.held_out[0]
            low, high = wilson_interval(now * num, num)
            table.add_row(
                "held-out accuracy",
                f"{now:.0%}",
                f"{start:.0%}",
                f"({low * 100:.0f}-{high * 100:.0f})",
                Text(f"{num} pairs, 95 % interval", style="dim"),
            )
        return Group(self._progress(), table)

    def _progress(self) -> Text:
        done = max(self.step - self.first_step, 0)
        seconds = time.monotonic() - self.started
        filled = round(24 * self.step / max(self.max_steps, 1))
        text = Text(f"  step {self.step}/{self.max_steps}  ")
        text.append("━" * filled, style="green").append("━" * (24 - filled), style="dim")
        if done:
            left = seconds / done * (self.max_steps - self.step)
            text.append(f"  {int(left) // 60}:{int(left) % 60:02d} left  {rate(self.tokens_per_second)} tok/s")
        return text


def rate(value: float) -> str:
    """A rate for people: 950, 3.1k, 2.4M."""
    for limit, divisor, suffix in ((1e3, 1, ""), (1e6, 1e3, "k"), (float("inf"), 1e6, "M")):
        if value < limit:
            return f"{value / divisor:.0f}" if not suffix else f"{value / divisor:.1f}{suffix}"
    raise AssertionError("a rate is below infinity")


def plain_line(row: Mapping[str, Any], numbers: Mapping[str, float], max_steps: int) -> str:
    """One row as one line, for logs and pipes."""
    parts = [f"step {row['step']}/{max_steps}"] if row["split"] == "train" else [f"held out at step {row['step']}"]
    parts += [f"{line.name.strip()} {numbers[line.metric]:.4g}" for line in LINES if line.metric in numbers]
    if row["split"] == "eval" and "rewards/accuracies" in numbers:
        low, high = wilson_interval(numbers["rewards/accuracies"] * numbers["num_pairs"], int(numbers["num_pairs"]))
        parts.append(f"({low * 100:.0f}-{high * 100:.0f} %, {int(numbers['num_pairs'])} pairs)")
    parts += [f"lr {numbers['learning_rate']:.2e}"] if "learning_rate" in numbers else []
    parts += [f"not finite: {', '.join(row[NON_FINITE])}"] if row.get(NON_FINITE) else []
    return "  ".join(parts)

"""What a person sees of a comparison: a line for each stage that ended, what runs and how long it will take, and at the end a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orpo.comparison.bootstrap import verdict
from orpo.comparison.scores import difference
from orpo.training.console import is_live, rate


@dataclass(slots=True)
class CompareView:
    """Lines of stages as they end; on a terminal also one that says what is going on. Use as a context manager."""

    console: Console
    jobs: int
    started: float = field(default_factory=time.monotonic)
    steps_done: int = 0
    live: Live | None = None

    def __enter__(self) -> CompareView:
        if is_live(self.console):
            self.live = Live("", console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line above what is going on."""
        self.console.print(text, markup=False, highlight=False)

    def ended(self, text: str, *, steps: int, done: int, total: int, steps_left: int) -> None:
        """A stage of `steps` optimizer steps has ended; `steps_left` are those of all that is still to come."""
        self.steps_done += steps
        self.say(f"[{done:>{len(str(total))}}/{total}] {text}{self._left(steps_left)}")

    def running(self, names: Sequence[str], *, done: int, total: int, steps_left: int) -> None:
        """What runs now, on a terminal."""
        if self.live:
            filled = round(24 * done / max(total, 1))
            text = Text(f"  {done}/{total}  ").append("━" * filled, style="green").append("━" * (24 - filled), style="dim")
            text.append(f"{self._left(steps_left)}  ").append(", ".join(names), style="dim")
            self.live.update(text)

    def _left(self, steps_left: int) -> str:
        """The time left, from the steps that were made since this session began; '' before the first."""
        if not self.steps_done or not steps_left:
            return ""
        seconds = int((time.monotonic() - self.started) / self.steps_done * steps_left)
        return f"  {seconds // 60}:{seconds % 60:02d} left"


def stage_line(name: str, settings: Mapping[str, Any], *, role: str, figure: str, error: str | None, seconds: float) -> str:
    """One stage that ended: what it was, what it came to, how long it took."""
    shown = " ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items())
    outcome = f"failed: {error}" if error else figure
    return "  ".join(part for part in (f"{name:<18} {role:<10}", shown, outcome, f"{seconds:.0f} s") if part)


def result_table(found: Mapping[str, Any]) -> Table:
    """Pipelines with their main figure, the difference to the baseline, accuracy, and what they cost, tuning left out."""
    main = found["metrics"][0]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("pipeline", main["title"], "against baseline", "accuracy", "seconds", "tokens", "GiB", "models"):
        table.add_column(header, header_style="dim", justify="left" if header == "pipeline" else "right", no_wrap=header == "pipeline")
    base = found["base"]["scores"]
    if main["id"] in base:
        table.add_row("(untrained)", _with_interval(base[main["id"]]), "", _accuracy(base), "", "", "", "")
    for entry in found["pipelines"]:
        table.add_row(Text(_named(entry, found)), *_cells(entry, main["id"]))
    return table


def _named(entry: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The pipeline's name; with how many seeds came to an end, where it is not all."""
    scores, seeds = entry["scores"], len(found["equal"]["seeds"])
    num = len(next(iter(scores.values()))["per_seed"]) if scores else 0
    return entry["name"] if num == seeds else f"{entry['name']} ({num} of {seeds} seeds)"


def _cells(entry: Mapping[str, Any], main: str) -> list[str]:
    score, apart, total = entry["scores"].get(main), entry.get("against", {}).get(main), entry["cost"]["total"]
    versus = _with_interval(apart, sign="+") if apart else "baseline" if entry["baseline"] else "-"
    costs = ["-"] * 4
    if total["seconds"] is not None:
        tokens = rate(total["tokens"] + total["reference_tokens"])
        costs = [f"{total['seconds']:.1f}", tokens, f"{total['peak_memory_gib']:.2f}", f"{total['models_in_memory']:.0f}"]
    return [_with_interval(score) if score else "-", versus, _accuracy(entry["scores"]), *costs]


def _accuracy(scores: Mapping[str, Any]) -> str:
    return f"{scores['accuracy']['mean']:.1%}" if "accuracy" in scores else "-"


def _with_interval(score: Mapping[str, float], *, sign: str = "") -> str:
    return f"{score['mean']:{sign}.3f} ({score['low']:{sign}.2f} to {score['high']:{sign}.2f})"


def sentences(found: Mapping[str, Any]) -> list[str]:
    """For each pipeline but the baseline, whether its main figure is told apart from the baseline's."""
    main = found["metrics"][0]
    baseline = next(entry["name"] for entry in found["pipelines"] if entry["baseline"])
    lines = []
    for entry in found["pipelines"]:
        apart = difference(entry, main["id"])
        if apart is not None:
            said = verdict(apart, better=main["better"])
            linked = {"not told apart": "from", "better": "than", "worse": "than", "different": "from"}[said]
            lines.append(f"{entry['name']}: {said} {linked} {baseline} by {main['title']}")
    return lines

"""From the Trainer's logs to rows of metrics.jsonl: TRL's metric names, one object per logged step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import transformers

Row = dict[str, Any]

LEFT_OUT = ("epoch", "runtime", "samples_per_second", "steps_per_second", "total_flos")
"""What the Trainer adds to its logs and our rows do not repeat: it follows from other columns."""


def metrics_row(logs: Mapping[str, Any], step: int) -> Row | None:
    """The row for `logs` of optimizer step `step`, or None for the Trainer's closing summary."""
    if "eval_loss" in logs:
        return {"step": step, "split": "eval", **{k.removeprefix("eval_"): v for k, v in logs.items() if k not in LEFT_OUT}}
    if "loss" in logs:
        return {"step": step, "split": "train", **{k: v for k, v in logs.items() if k not in LEFT_OUT}}
    return None


class RecordingCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Hands each row to `sinks` (the metrics file, the view) on the first rank."""

    def __init__(self, *sinks: Callable[[Row], None]) -> None:
        self.sinks = sinks

    def on_log(self, args: Any, state: transformers.TrainerState, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Called by the Trainer on every rank after each log."""
        row = metrics_row(logs or {}, state.global_step)
        if row is not None and state.is_world_process_zero:
            for sink in self.sinks:
                sink(row)

"""What stands between a bad step and the weights: the finite check, and the signals that ask for a checkpoint."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers
from torch import Tensor

from orpo.core.tokens import TokenizedExample
from orpo.engine.views import Logps, detached, totals_by_example
from orpo.errors import InterruptedRun, NotFiniteError
from orpo.runs.atomic import write_json_atomic
from orpo.training.ranks import from_first

MAX_SKIPPED_IN_A_ROW = 3


class FiniteGuard:
    """Decides before each optimizer step whether it may touch the weights; skips it, saves its batch, and gives up after three in a row."""

    def __init__(self, save_batch: Callable[[dict[str, Any]], str]) -> None:
        self.save_batch = save_batch
        self.num_skipped = self.num_in_a_row = self.step = 0
        self.examples: Sequence[TokenizedExample] = ()
        self.seen: list[tuple[list[TokenizedExample], Logps]] = []
        self.loss = torch.zeros(())

    def begin(self, step: int, examples: Sequence[TokenizedExample]) -> None:
        """A step starts: `examples` are its pairs over all ranks."""
        self.step, self.examples = step, examples
        self.seen.clear()

    def saw(self, examples: list[TokenizedExample], logps: Logps) -> None:
        """The log-probs of one micro-batch of this rank, kept until the step is over to name a pair that went wrong."""
        self.seen.append((examples, detached(logps)))

    def end(self, loss: Tensor) -> None:
        """This rank's share of the step's loss."""
        self.loss = loss

    def must_skip(self, grad_norm: Tensor | float) -> bool:
        """True when this step must not touch the weights: the gradient norm (already reduced over ranks) or the loss is not finite.

        Raises NotFiniteError (exit 5) at the third such step in a row.
        """
        norm = float(grad_norm)
        loss = self._loss_of_all_ranks()
        if math.isfinite(norm) and math.isfinite(loss):
            self.num_in_a_row = 0
            self.seen.clear()
            return False
        self.num_skipped += 1
        self.num_in_a_row += 1
        report = self._report(loss, norm)
        place = self.save_batch(report)
        if self.num_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise NotFiniteError(
                f"loss {loss} and gradient norm {norm} in step {self.step + 1}: the {self.num_in_a_row}rd step in a row that is not finite",
                where=", ".join(report["suspects"][:3]),
                doing="training; the optimizer step was not made, the weights are as they were before these steps",
                expected="" if report["suspects"] else "a gradient within range: every log-prob was finite, the gradient was not",
                fix=f"look at the pairs saved in {place}; lower learning_rate, or set dtype: float32",
            )
        self.seen.clear()
        return True

    def _loss_of_all_ranks(self) -> float:
        loss = self.loss.detach().clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(loss)
        return float(loss)

    def _report(self, loss: float, norm: float) -> dict[str, Any]:
        """What is saved: every pair of the step, of all ranks, with its ids and log-probs; `suspects` are those that are not finite."""
        pairs = []
        for examples, logps in self.seen:
            for example, totals in zip(examples, totals_by_example(logps, examples), strict=True):
                pairs.append(
                    {
                        "source": str(example.source),
                        "logps": {name: repr(total) for name, total in totals.items()},
                        "prompt_ids": example.prompt_ids.tolist(),
                        "completions": [completion.tolist() for completion in example.completions],
                        "finite": all(math.isfinite(total) for total in totals.values()),
                    }
                )
        if torch.distributed.is_initialized():
            shares: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(shares, pairs)
            pairs = [pair for share in shares for pair in share]
        suspects = [pair["source"] for pair in pairs if not pair["finite"]]
        return {"step": self.step + 1, "loss": repr(loss), "grad_norm": repr(norm), "suspects": suspects, "pairs": pairs}


def batch_saver(run_dir: Path) -> Callable[[dict[str, Any]], str]:
    """A function that writes the batch of a step that was not finite, and returns where. All ranks call it, and fail together."""

    def save(report: dict[str, Any]) -> str:
        path = run_dir / f"non-finite-step-{report['step']}.json"
        from_first(lambda: write_json_atomic(path, report))
        return str(path)

    return save


class StopSignals:
    """Context manager: SIGINT and SIGTERM ask for a checkpoint at the end of the step, SIGUSR1 for one without stopping.

    A second SIGINT or SIGTERM stops at once: the handlers that were there before are put back after the first.
    """

    STOPS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.stop_number = 0
        self.wants_save = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (*self.STOPS, signal.SIGUSR1):
            self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.wants_save = True
            return
        self.stop_number = number
        for stop in self.STOPS:
            signal.signal(stop, self.before[stop] if self.before[stop] is not None else signal.SIG_DFL)
        self.say(f"{signal.Signals(number).name} received: finishing this step, then saving a checkpoint (once more: stop now)")


@contextmanager
def stops_are_errors() -> Iterator[None]:
    """SIGINT and SIGTERM raise InterruptedRun inside the block, wherever it is: while data are checked, replies written, a model exported.

    During training StopSignals takes their place, and puts this back after the first signal. Signals belong to the main thread; elsewhere
    nothing is installed.
    """

    def receive(number: int, _: FrameType | None) -> None:
        raise InterruptedRun(
            f"{signal.Signals(number).name} received: stopped at once",
            signal_number=number,
            fix="the same command again goes on from the last checkpoint, or starts anew where there is none yet",
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, receive) for number in StopSignals.STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SignalCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """At the end of each step the ranks agree on what was asked for, so that all of them save, or stop, at the same step."""

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals
        self.agreed_stop = 0

    def on_step_end(
        self, args: transformers.TrainingArguments, state: transformers.TrainerState, control: transformers.TrainerControl, **_: Any
    ) -> None:
        """One all-reduce of (stop signal, wish to save); rank-local flags never act alone."""
        asked = torch.tensor([self.signals.stop_number, int(self.signals.wants_save)], device=args.device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        self.agreed_stop, wants_save = (int(value) for value in asked.tolist())
        if self.agreed_stop:
            control.should_save = control.should_training_stop = True
        if wants_save:
            control.should_save = True
            self.signals.wants_save = False

"""One process per contender, alive for the whole benchmark; it computes one round when told, so that rounds interleave and none overlap."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from contenders import Contender, Setup, orpo_first_loss, orpo_trainer
from gemm_floor import product_rates
from model_shapes import build_body, build_scorer
from pair_data import longest_row
from rivals import our_rival, trl_rival
from trl_peers import import_trainer, trl_trainer


class ContenderFailed(Exception):
    """A contender's process ended with an error; the text is its traceback."""


class OutOfMemory(ContenderFailed):
    """A contender did not fit on the device."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one contender: seconds of its steps, their losses, and the peak memory of its process so far, in GiB.

    Of ours also the engine's path; over the completion alone, `trl_loss` is what would have been the first loss under preset trl. Where
    reference log-probs are precomputed, `reference_seconds` is how long the pass over all steps took.
    """

    seconds: float
    losses: tuple[float, ...]
    peak_gib: float
    before_model_gib: float
    trl_loss: float | None = None
    path: str = ""
    reference_seconds: float | None = None


class Process:
    """A process that answers "go" with one result, and ends with "stop"."""

    def __init__(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_guarded, args=(work, theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def go(self) -> Any:
        """The next result. Raises ContenderFailed with the traceback of the process, OutOfMemory when that was the reason."""
        try:
            self.pipe.send("go")
            result = self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join(5)
            code = self.process.exitcode
            kind = OutOfMemory if code == -9 else ContenderFailed  # killed: on Linux, by the kernel for want of memory
            raise kind(f"{self.name} ended with exit code {code} and no result") from error
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self) -> None:
        """Nothing; the process is gone."""
        self.pipe.close()
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def processes(plans: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Process]]:
    """Name -> a started process for each (work, *arguments); all are ended when the block is left."""
    started: dict[str, Process] = {}
    try:
        for name, plan in plans.items():
            started[name] = Process(name, *plan)
        yield started
    finally:
        for process in started.values():
            process.stop()


def _guarded(work: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    """Runs `work` in its process; what goes wrong is sent to the parent."""
    warnings.simplefilter("ignore")  # TRL and PEFT speak of renamed settings; nothing of it is about a figure
    try:
        work(pipe, *arguments)
    except EOFError:
        return  # the parent needs no more rounds
    except BaseException as error:
        kind = OutOfMemory if _is_out_of_memory(error) else ContenderFailed
        pipe.send(kind(traceback.format_exc()))


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def train_in_rounds(pipe: Connection, which: Contender, setup: Setup) -> None:
    """The work of a contender: the warm-up is its first round, then as many as there are in `setup.steps`."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    import_trainer(which, setup.objective)
    before = resident_peak_gib()
    where = {"seed": setup.seed, "device": setup.device, "positions": longest_row(setup.steps.pairs) + 2}
    is_scored = setup.objective == "reward"
    body = build_scorer(setup.shape, **where) if is_scored else build_body(setup.shape, dtype=setup.dtype, **where)
    with tempfile.TemporaryDirectory(prefix="orpo-bench-") as folder:
        assert pipe.recv() == "go"  # precomputing a reference is timed, so it waits for its turn
        trainer, reference_seconds = _built(body, which, setup, Path(folder))
        gate = _gate(pipe, trainer, setup, is_ours=which.is_ours, before=before, reference_seconds=reference_seconds)
        trainer.add_callback(gate)
        trainer.train()


def _built(body: Any, which: Contender, setup: Setup, folder: Path) -> tuple[Any, float | None]:
    """The trainer of `which`, and how long a pass for reference log-probs took, where there was one."""
    if setup.objective != "orpo":
        return (our_rival if which.is_ours else trl_rival)(body, which, setup, folder)
    return (orpo_trainer if which.is_ours else trl_trainer)(body, which, setup, folder), None


def _gate(pipe: Connection, trainer: Any, setup: Setup, *, is_ours: bool, before: float, reference_seconds: float | None) -> Any:
    """A callback that holds the training loop until a round is asked for and times its steps, from step begin to step end.

    The first round was asked for before the trainer was built. The loop is transformers' own on both sides. Collation, logging and
    checkpoints lie outside of these two points on both sides.
    """
    import torch
    import transformers

    losses: list[Any] = []
    plain_step = trainer.training_step

    def recorded(*arguments: Any, **named: Any) -> Any:
        loss = plain_step(*arguments, **named)
        losses.append(loss.detach())
        return loss

    trainer.training_step = recorded

    class Gate(transformers.TrainerCallback):  # type: ignore[misc]
        seconds = start = 0.0
        trl_loss: float | None = None
        num_done = 0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if self.num_done == 0 and is_ours and setup.objective == "orpo" and setup.nll_over == "completion":
                self.trl_loss = orpo_first_loss(trainer, setup)
            if self.num_done >= setup.steps.warm_up and self._position == 0:
                assert pipe.recv() == "go"
                self.seconds = 0.0
                losses.clear()
            _synchronize(setup.device)
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            _synchronize(setup.device)
            self.seconds += time.perf_counter() - self.start
            self.num_done += 1
            if self.num_done < setup.steps.warm_up or self._position:
                return
            peak = torch.cuda.max_memory_allocated() / 2**30 if setup.device == "cuda" else resident_peak_gib()
            path = str(getattr(trainer.model, "engine", trainer.model).path) if is_ours else ""
            pipe.send(Round(self.seconds, tuple(float(loss) for loss in losses), peak, before, self.trl_loss, path, reference_seconds))

        @property
        def _position(self) -> int:
            """Steps done of the present round."""
            return (self.num_done - setup.steps.warm_up) % setup.steps.steps_per_round

    return Gate()


def measure_products(pipe: Connection, shapes: dict[str, tuple[int, int, int]], dtype: str, device: str) -> None:
    """The work of the process that measures the machine: rates of matrix products, once per round."""
    while True:
        assert pipe.recv() == "go"
        pipe.send(product_rates(shapes, dtype=dtype, device=device))


def _synchronize(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def resident_peak_gib() -> float:
    """The largest resident memory of this process so far, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage it does not count what the parent had when it started this process
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def interleaved(plans: Mapping[str, tuple[Any, ...]], *, rounds: int) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Name -> results of the warm-up and of `rounds` rounds, all taking turns; and name -> why, for those that ran out of memory."""
    results: dict[str, list[Any]] = {name: [] for name in plans}
    failed: dict[str, str] = {}
    with processes(plans) as running:
        for _ in range(rounds + 1):
            for name, process in running.items():
                if name not in failed:
                    _take_turn(process, results[name], failed)
    return results, failed


def one_after_another(plans: Mapping[str, tuple[Any, ...]], *, rounds: int) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The same with one process alive at a time: for a device whose memory does not hold all of them."""
    results: dict[str, list[Any]] = {}
    failed: dict[str, str] = {}
    for name, plan in plans.items():
        alone, lost = interleaved({name: plan}, rounds=rounds)
        results |= alone
        failed |= lost
    return results, failed


def _take_turn(process: Process, results: list[Any], failed: dict[str, str]) -> None:
    try:
        results.append(process.go())
    except OutOfMemory as error:
        failed[process.name] = str(error).strip().splitlines()[-1]

"""The one Trainer subclass. One of its batches is one optimizer step: pairs chosen by (seed, step), cut into micro-batches here.

What it changes of `transformers.Trainer`, and why, is docs/decisions/0002-trainer-seams.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss, Metric, step_loss
from orpo.core.tokens import UNITS, TokenizedExample, add_counts, unit_counts
from orpo.engine.batching import heaviest_cut, in_order, micro_batches, pairs_before, step_pairs, steps_per_epoch
from orpo.training.guards import FiniteGuard

ENOUGH = 0.9
"""A step with this share of the largest micro-batch's tokens shows by itself whether the run fits."""

Objective = Callable[[PairLogps], Loss]


class Examples(Protocol):
    """Tokenized pairs by position; `lengths` are their distinct tokens."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> TokenizedExample: ...


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What a step is made of. `lengths` are the distinct tokens of each training pair, `costs` its rows in a micro-batch: as many where
    prompts are shared, more where they are computed twice."""

    objective: Objective
    lengths: Sequence[int]
    costs: Sequence[int]
    pairs_per_step: int
    tokens_per_micro_batch: int
    seed: int


@dataclass(slots=True)
class Progress:
    """What has been seen since the run began, and the metrics of the steps since the last log; totals stay on the device."""

    num_tokens: int = 0
    num_pairs: int = 0
    num_steps: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)

    def add(self, metrics: Mapping[str, Metric], counts: Mapping[str, int]) -> None:
        """Add one micro-batch's share: totals over the step's count of their unit, so that shares of a step add up to its mean."""
        for name, metric in metrics.items():
            if not metric.unit:
                self.counted.add(name)
            share = metric.total.detach().double() / (counts[metric.unit] if metric.unit else 1)
            self.totals[name] = self.totals[name] + share if name in self.totals else share


class PreferenceTrainer(transformers.Trainer):  # type: ignore[misc]
    """Trains a PairLogpsModel. `store` holds the training pairs, `eval_store` the held-out ones (or None)."""

    def __init__(
        self,
        model: nn.Module,
        args: transformers.TrainingArguments,
        *,
        settings: StepSettings,
        store: Examples,
        eval_store: Examples | None,
        guard: FiniteGuard,
        save: Callable[[PreferenceTrainer], Path],
        callbacks: list[transformers.TrainerCallback],
    ) -> None:
        super().__init__(model, args, train_dataset=range(len(store)), eval_dataset=eval_store, callbacks=callbacks)
        self.remove_callback(transformers.trainer_callback.PrinterCallback)
        self.settings, self.store, self.eval_store, self.guard, self.save = settings, store, eval_store, guard, save
        self.progress = Progress()
        self.started = time.monotonic()
        self.has_rehearsed = False

    def get_train_dataloader(self) -> DataLoader[int]:
        """Positions of the steps of one epoch. The pairs themselves follow from `state.global_step`, so a resume cannot shift them."""
        steps = steps_per_epoch(len(self.store), self.settings.pairs_per_step)
        return DataLoader(range(steps), batch_size=1, collate_fn=lambda positions: {"position": positions[0]})  # type: ignore[arg-type]

    def step_indices(self, step: int) -> list[int]:
        """Positions of the pairs of optimizer step `step`, over all ranks."""
        return step_pairs(len(self.store), self.settings.pairs_per_step, seed=self.settings.seed, step=step)

    def restore_progress(self, step: int, seconds: float, num_pairs: int) -> None:
        """Counts on after a resume: `num_pairs` were seen in `seconds`; their tokens follow from the data order."""
        self.started = time.monotonic() - seconds
        visits = pairs_before(len(self.store), self.settings.pairs_per_step, seed=self.settings.seed, step=step)
        self.progress.num_pairs = num_pairs
        self.progress.num_tokens = int(visits @ np.asarray(self.settings.lengths, dtype=np.int64))

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One optimizer step's gradient: the sum over its micro-batches of sums divided by step-wide counts. Returns the step's loss."""
        step = self.state.global_step
        assert inputs["position"] == step % len(self.callback_handler.train_dataloader), "the data order has slipped"
        indices = self.step_indices(step)
        examples = [self.store[i] for i in indices]
        counts = unit_counts(examples)
        costs = [self.settings.costs[i] for i in indices]
        ranks = micro_batches(costs, self.settings.tokens_per_micro_batch, num_ranks=self.args.world_size)
        bins = ranks[self.args.process_index]
        model.train()
        # From the second step on (or the first after a resume) the optimizer's state is there: only then does the peak show.
        if not self.has_rehearsed and self.optimizer.state:
            self._rehearse(model, step, max(sum(costs[i] for i in members) for rank in ranks for members in rank))
        self.guard.begin(step, examples)
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)

        def share_of(part: PairLogps, _: slice = slice(None)) -> Tensor:
            return step_loss(self.settings.objective(part), counts)

        for position, members in enumerate(bins):
            is_last = position == len(bins) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                batch = [examples[i] for i in members]
                logps = model(batch, share=share_of)
                loss = self.settings.objective(logps)
                share = step_loss(loss, counts)
                # DDP averages gradients over ranks; the shares of all ranks must add up instead.
                self.accelerator.backward(share * self.args.world_size)
            total += share.detach()
            self.guard.saw(batch, logps)
            # "loss" in fp64 replaces the parent's fp32 running sum in the log.
            self.progress.add({**loss.metrics, "loss": Metric(share * counts["pairs"])}, counts)
        self.progress.num_steps += 1
        self.progress.num_pairs += len(examples)
        self.progress.num_tokens += sum(example.num_tokens for example in examples)
        self.guard.end(total)
        step_total: Tensor = total * self.args.world_size
        return step_total

    def _rehearse(self, model: nn.Module, step: int, tokens_now: int) -> None:
        """Nothing; the largest micro-batch of the rest of the run has been tried, and the next of its step beside the gradients it left.

        So running out of memory shows now and not after hours. Not where this step, with up to `tokens_now` at once, is about as large
        itself. Gradients are thrown away, random numbers are drawn as if nothing had been.
        """
        self.has_rehearsed = True
        settings = self.settings
        cut = heaviest_cut(
            settings.costs,
            settings.pairs_per_step,
            settings.tokens_per_micro_batch,
            seed=settings.seed,
            steps=range(step, self.state.max_steps),
            num_ranks=self.args.world_size,
        )
        if tokens_now >= ENOUGH * sum(settings.costs[i] for i in cut[0]):
            return
        batches = [[self.store[i] for i in members] for members in cut[:2] if members]
        counts = unit_counts(example for batch in batches for example in batch)

        def share_of(part: PairLogps, _: slice = slice(None)) -> Tensor:
            return step_loss(settings.objective(part), counts)

        device = self.args.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), self.accelerator.no_sync(model):
            for batch in batches:
                self.accelerator.backward(share_of(model(batch, share=share_of)))
        model.zero_grad(set_to_none=True)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm, as the parent gives it; when it or the loss is not finite, the step changes nothing."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self.guard.must_skip(norm):
            # With no gradients AdamW skips every parameter: no weight decay, no moment update.
            model.zero_grad(set_to_none=True)
        return norm

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Means over all held-out pairs and ranks of the objective's loss and metrics, named eval_<name>."""
        assert self.eval_store is not None, "nothing is held out"
        self.model.eval()
        counts = dict.fromkeys(UNITS, 0)
        totals: dict[str, tuple[Tensor, str]] = {}
        with torch.no_grad():
            mine = (self.eval_store[i] for i in range(self.args.process_index, len(self.eval_store), self.args.world_size))
            # A rank without a pair evaluates an empty batch: its sums are zeros under the names that the others have.
            batches = in_order(mine, self.settings.tokens_per_micro_batch)
            for batch in chain([next(batches, [])], batches):
                counts = add_counts(counts, unit_counts(batch))
                loss = self.settings.objective(self.model(batch))
                terms = {f"term/{t.name}": Metric(t.total * t.weight, t.unit) for t in loss.terms}
                for name, metric in {**loss.metrics, **terms}.items():
                    total = metric.total.detach().double()
                    totals[name] = (totals[name][0] + total if name in totals else total, metric.unit)
        metrics = self._means(totals, counts)
        logs = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(logs)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)  # type: ignore[has-type]
        return logs

    def _means(self, totals: Mapping[str, tuple[Tensor, str]], counts: Mapping[str, int]) -> dict[str, float]:
        """`totals` over `counts`, both summed over ranks; the terms added up as 'loss'."""
        names = sorted(totals)
        units = sorted(counts)
        flat = torch.stack([torch.as_tensor(totals[n][0], device=self.args.device).double() for n in names])
        flat = torch.cat([flat, torch.tensor([counts[u] for u in units], dtype=torch.float64, device=self.args.device)])
        flat = self.accelerator.reduce(flat, "sum").cpu()
        summed = dict(zip(units, flat[len(names) :].tolist(), strict=True))
        means = {n: float(flat[i]) / (summed[totals[n][1]] if totals[n][1] else 1.0) for i, n in enumerate(names)}
        loss = sum(means.pop(n) for n in names if n.startswith("term/"))
        return {"loss": loss, **means, "num_pairs": int(summed["pairs"])}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log `logs`; a training log gains the objective's metrics, averaged over the steps since the last one (counts: summed)."""
        if "loss" in logs and self.progress.num_steps:
            names = sorted(self.progress.totals)
            flat = torch.stack([self.progress.totals[name] for name in names])
            summed = zip(names, self.accelerator.reduce(flat, "sum").tolist(), strict=True)
            logs |= {name: total if name in self.progress.counted else total / self.progress.num_steps for name, total in summed}
            self.progress.totals.clear()
            self.progress.num_steps = 0
        if "loss" in logs or "eval_loss" in logs:
            seen = {"num_tokens": self.progress.num_tokens, "num_pairs": self.progress.num_pairs}
            logs |= {} if "eval_loss" in logs else seen
            logs["seconds"] = time.monotonic() - self.started
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Publish a checkpoint; the order of writes, hashes and renames is `training/checkpointing.py`."""
        self.save(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: the weights were loaded from the verified checkpoint when the model was assembled."""

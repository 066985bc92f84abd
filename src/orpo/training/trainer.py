"""The one Trainer subclass. One of its batches is one optimizer step: pairs chosen by (seed, step), cut into micro-batches here.

What it changes of `transformers.Trainer`, and why, is docs/decisions/0002-trainer-seams.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader

import orpo.training.four_bit  # noqa: F401  # the Trainer imports bitsandbytes; this must be first, and says why
from orpo.core.loss import Metric, denominator, step_loss
from orpo.core.tokens import UNITS, Examples, TokenizedExample, add_counts, unit_counts
from orpo.engine.batching import heaviest_cut, in_order, micro_batches, pairs_before, step_pairs, steps_per_epoch
from orpo.engine.sharded import is_sharded
from orpo.engine.views import Logps
from orpo.training.beside import Beside, LossOf, MismatchedPairs, Objective, loss_beside, measured_baseline
from orpo.training.guards import FiniteGuard
from orpo.training.mismatched import first_visit
from orpo.training.ranks import in_step
from orpo.training.references import Totals
from orpo.training.sharded_state import load_divided

ENOUGH = 0.9
"""A step with this share of the largest micro-batch's tokens shows by itself whether the run fits."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What a step is made of. `lengths` are the distinct tokens of each training pair, `costs` its rows in a micro-batch: as many where
    prompts are shared, more where they are computed twice. `beside` is what the objective reads besides."""

    objective: Objective
    lengths: Sequence[int]
    costs: Sequence[int]
    pairs_per_step: int
    tokens_per_micro_batch: int
    seed: int
    beside: Beside = field(default_factory=Beside)


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
            self.add_share(name, metric.total.detach().double() / (denominator(counts, metric.unit) if metric.unit else 1))

    def add_share(self, name: str, share: Tensor) -> None:
        """Add one micro-batch's share of a mean over the step."""
        self.totals[name] = self.totals[name] + share if name in self.totals else share


class PreferenceTrainer(transformers.Trainer):  # type: ignore[misc]
    """Trains a LogpsModel. `store` holds the training pairs, `eval_store` the held-out ones (or None)."""

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
        self.evaluation_seconds = 0.0
        self.has_rehearsed = False

    def get_train_dataloader(self) -> DataLoader[int]:
        """Positions of the steps of one epoch. The pairs themselves follow from `state.global_step`, so a resume cannot shift them."""
        steps = steps_per_epoch(len(self.store), self.settings.pairs_per_step)
        return DataLoader(range(steps), batch_size=1, collate_fn=lambda positions: {"position": positions[0]})  # type: ignore[arg-type]

    def step_indices(self, step: int) -> list[int]:
        """Positions of the pairs of optimizer step `step`, over all ranks."""
        return step_pairs(len(self.store), self.settings.pairs_per_step, seed=self.settings.seed, step=step)

    def restore_progress(self, step: int, seconds: float, num_pairs: int, *, evaluation_seconds: float = 0.0) -> None:
        """Counts on after a resume: `num_pairs` were seen in `seconds`, some of them for evaluations; tokens follow from the data order."""
        self.started, self.evaluation_seconds = time.monotonic() - seconds, evaluation_seconds
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
        baseline = self._baseline(step)
        model.train()
        # From the second step on (or the first after a resume) the optimizer's state is there: only then does the peak show.
        if not self.has_rehearsed and self.optimizer.state:
            self._rehearse(model, step, max(sum(costs[i] for i in members) for rank in ranks for members in rank))
        self.guard.begin(step, examples)
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        for position, members in enumerate(bins):
            is_last = position == len(bins) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                batch = [examples[i] for i in members]
                loss_of = self._loss_of(batch, [indices[i] for i in members], baseline)
                logps = model(batch, share=_share_of(loss_of, counts))
                loss = loss_of(logps, slice(None))
                share = step_loss(loss, counts)
                # DDP averages gradients over ranks; the shares of all ranks must add up instead.
                self.accelerator.backward(share * self.args.world_size)
            total += share.detach()
            self.guard.saw(batch, logps)
            self.progress.add(loss.metrics, counts)
            # In fp64: it replaces the parent's fp32 running sum in the log.
            self.progress.add_share("loss", share.detach())
        self.progress.num_steps += 1
        self.progress.num_pairs += len(examples)
        self.progress.num_tokens += sum(example.num_tokens for example in examples)
        self.guard.end(total)
        return torch.mul(total, self.args.world_size)

    def _loss_of(self, examples: list[TokenizedExample], positions: Sequence[int], baseline: Tensor | None) -> LossOf:
        """The loss of a micro-batch of training examples as a function of the policy's log-probs."""
        beside = self.settings.beside
        reference = beside.references.train(examples, positions) if beside.references else None
        return loss_beside(self.settings.objective, beside.reads, examples, reference, baseline)

    def _baseline(self, step: int) -> Tensor | None:
        """z0 of optimizer step `step`, the same on all ranks, measured before its first micro-batch; None for an objective without one."""
        mismatched, references = self.settings.beside.mismatched, self.settings.beside.references
        if mismatched is None or references is None:
            return None
        first, last = (first_visit(s, len(self.store), self.settings.pairs_per_step) for s in (step, step + 1))
        return self._measured(mismatched, mismatched.train, range(first, last), references.mismatched)

    def _held_out_baseline(self) -> Tensor | None:
        """z0 of all held-out examples, the same on all ranks; None for an objective without one."""
        mismatched, references = self.settings.beside.mismatched, self.settings.beside.references
        if mismatched is None or references is None:
            return None
        assert mismatched.held_out is not None, "nothing is held out"
        return self._measured(mismatched, mismatched.held_out, range(len(mismatched.held_out)), references.held_out_mismatched)

    def _measured(self, mismatched: MismatchedPairs, store: Examples, positions: range, reference: Totals) -> Tensor:
        """z0 of the pairs at `positions` of `store`, each measured by one of the ranks."""
        return measured_baseline(
            store,
            positions[self.args.process_index :: self.args.world_size],
            policy=mismatched.policy,
            reference=reference,
            tokens_at_once=self.settings.tokens_per_micro_batch,
            over_ranks=self._summed,
        )

    def _summed(self, values: Tensor) -> Tensor:
        """`values` summed over the ranks, on this rank's device."""
        summed: Tensor = self.accelerator.reduce(values.to(self.args.device), "sum")
        return summed

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
        counts = unit_counts(self.store[i] for members in cut[:2] for i in members)
        baseline = torch.zeros((), dtype=torch.float64, device=self.args.device) if settings.beside.mismatched else None
        device = self.args.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), self.accelerator.no_sync(model):
            for members in cut[:2]:
                if not members:
                    continue
                batch = [self.store[i] for i in members]
                share_of = _share_of(self._loss_of(batch, members, baseline), counts)
                self.accelerator.backward(share_of(model(batch, share=share_of), slice(None)))
        model.zero_grad(set_to_none=True)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm, as the parent gives it; when it or the loss is not finite, the step changes nothing."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if self.guard.must_skip(norm):
            # With no gradients AdamW skips every parameter: no weight decay, no moment update.
            model.zero_grad(set_to_none=True)
        return norm

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Means over all held-out pairs and ranks of the objective's loss and metrics, named eval_<name>."""
        assert self.eval_store is not None, "nothing is held out"
        started = time.monotonic()
        self.model.eval()
        counts = dict.fromkeys(UNITS, 0)
        totals: dict[str, tuple[Tensor, str]] = {}
        beside, mine = self.settings.beside, range(self.args.process_index, len(self.eval_store), self.args.world_size)
        baseline, num = self._held_out_baseline(), 0
        with torch.no_grad():
            # A rank with fewer pairs evaluates empty batches: its sums are zeros under the names that the others have.
            for batch in in_step(in_order((self.eval_store[i] for i in mine), self.settings.tokens_per_micro_batch)):
                counts = add_counts(counts, unit_counts(batch))
                reference = beside.references.held_out(batch, mine[num : num + len(batch)]) if beside.references else None
                num += len(batch)
                loss = loss_beside(self.settings.objective, beside.reads, batch, reference, baseline)(self.model(batch), slice(None))
                terms = {f"term/{t.name}": Metric(t.total * t.weight, t.unit) for t in loss.terms}
                for name, metric in {**loss.metrics, **terms}.items():
                    total = metric.total.detach().double()
                    totals[name] = (totals[name][0] + total if name in totals else total, metric.unit)
        metrics = {**self._means(totals, counts), "num_pairs": len(self.eval_store)}
        logs = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.evaluation_seconds += time.monotonic() - started
        self.log(logs)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)  # type: ignore[has-type]
        return logs

    def _means(self, totals: Mapping[str, tuple[Tensor, str]], counts: Mapping[str, int]) -> dict[str, float]:
        """`totals` over `counts`, both summed over ranks; the terms added up as 'loss'."""
        names = sorted(totals)
        units = sorted(counts)
        flat = torch.stack([torch.as_tensor(totals[n][0], device=self.args.device).double() for n in names])
        flat = torch.cat([flat, torch.tensor([counts[u] for u in units], dtype=torch.float64, device=self.args.device)])
        flat = self._summed(flat).cpu()
        summed = {unit: int(num) for unit, num in zip(units, flat[len(names) :].tolist(), strict=True)}
        means = {n: float(flat[i]) / (denominator(summed, totals[n][1]) if totals[n][1] else 1) for i, n in enumerate(names)}
        loss = sum(means.pop(n) for n in names if n.startswith("term/"))
        return {"loss": loss, **means}

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
            logs |= {"evaluation_seconds": self.evaluation_seconds} if self.eval_store is not None else {}
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Publish a checkpoint; the order of writes, hashes and renames is `training/checkpointing.py`."""
        self.save(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: the weights were loaded from the verified checkpoint when the model was assembled."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the parent does; where weights are divided, so is the optimizer's state, which is whole in a checkpoint."""
        if checkpoint is not None and is_sharded(self.model.body):
            load_divided(self.optimizer, self.lr_scheduler, Path(checkpoint))
        else:
            super()._load_optimizer_and_scheduler(checkpoint)


def _share_of(loss_of: LossOf, counts: Mapping[str, int]) -> Callable[[Logps, slice], Tensor]:
    """The share of the step's loss, over the step's `counts`, as a function of the policy's log-probs of some of a micro-batch."""
    return lambda part, members: step_loss(loss_of(part, members), counts)

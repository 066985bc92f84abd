"""Wiring, and nothing else: settings, model and data enter, a trainer that is ready to run leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.loss import step_loss
from orpo.core.tokens import UNITS, Examples
from orpo.engine.batching import steps_per_epoch
from orpo.engine.model import LogpsModel
from orpo.engine.packed import chunk_bytes_for
from orpo.engine.paths import Path as EnginePath
from orpo.engine.precision import Precision
from orpo.engine.scores import ScoresModel
from orpo.errors import ConfigError
from orpo.training.beside import Beside, Objective
from orpo.training.guards import FiniteGuard
from orpo.training.trainer import PreferenceTrainer, StepSettings

if TYPE_CHECKING:
    from orpo.training.config import TrainConfig

AUTO_BUDGET = 2048
"""Tokens of a micro-batch on a CPU when nothing is said: its products run at their full rate, more only needs more memory."""

NEVER = 10**9
"""A step that no run reaches: the Trainer then acts at the last step alone."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do, worked out before a model is loaded."""

    num_pairs: int
    pairs_per_step: int
    steps_per_epoch: int
    max_steps: int
    tokens_per_micro_batch: int


def plan(config: TrainConfig, lengths: Sequence[int]) -> Plan:
    """Steps and token budget for training pairs of `lengths` distinct tokens. Raises ConfigError when a pair exceeds the given budget."""
    per_epoch = steps_per_epoch(len(lengths), config.pairs_per_step)
    max_steps = config.max_steps if config.max_steps > 0 else max(1, ceil(config.num_train_epochs * per_epoch))
    longest = max(lengths)
    budget = config.tokens_per_micro_batch
    if budget == "auto":
        budget = max(AUTO_BUDGET, longest)
    elif longest > int(budget):
        raise ConfigError(
            f"tokens_per_micro_batch is {budget}, but the longest pair has {longest} tokens",
            fix=f"set tokens_per_micro_batch to {longest} or more, or lower max_length",
        )
    return Plan(len(lengths), config.pairs_per_step, per_epoch, max_steps, int(budget))


def training_arguments(
    config: TrainConfig, run_plan: Plan, *, run_dir: Path, precision: Precision, has_held_out: bool, is_resumed: bool
) -> transformers.TrainingArguments:
    """The Trainer's own settings. Its batch is one optimizer step, so nothing is accumulated by it."""
    arguments = transformers.TrainingArguments(
        output_dir=str(run_dir),
        max_steps=run_plan.max_steps,
        per_device_train_batch_size=config.pairs_per_step,
        gradient_accumulation_steps=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        optim=config.optim,
        logging_steps=config.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if has_held_out else "no",
        eval_steps=config.eval_steps or NEVER,
        eval_on_start=has_held_out and not is_resumed,
        save_strategy="steps",
        save_steps=config.save_steps or NEVER,
        # The Trainer refuses to save the optimizer of a divided model, which it does not know how to. It is saved by us.
        save_only_model=config.sharding != "none",
        bf16=precision.dtype == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        report_to=list(config.report_to) if not isinstance(config.report_to, str) else config.report_to,
        run_name=run_dir.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        log_level="warning",
    )
    # Several GPUs in one process would mean nn.DataParallel, which knows neither our batches nor our counts.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


class SavedStepsAreLogged(transformers.TrainerCallback):  # type: ignore[misc]
    """Each saved step is logged, and so is the last: a row then averages the same steps whether or not the run was resumed in between."""

    def on_step_end(self, args: Any, state: transformers.TrainerState, control: transformers.TrainerControl, **_: Any) -> None:
        """Called by the Trainer after each optimizer step."""
        control.should_log |= control.should_save or state.global_step >= state.max_steps


class ChangedSettingsApply(transformers.TrainerCallback):  # type: ignore[misc]
    """After a resume, learning rate, weight decay and betas are those of the config, not those stored with the optimizer."""

    def on_train_begin(
        self, args: transformers.TrainingArguments, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **_: Any
    ) -> None:
        """Sets them in the optimizer, and the base learning rate in the schedule; changes nothing where nothing was changed."""
        for group, decay in zip(optimizer.param_groups, (args.weight_decay, 0.0), strict=False):  # as the Trainer builds its groups
            group["weight_decay"] = decay
            if "betas" in group:
                group["betas"] = (args.adam_beta1, args.adam_beta2)
        schedules = getattr(lr_scheduler, "lr_lambdas", None)
        if schedules is None or all(base == args.learning_rate for base in lr_scheduler.base_lrs):
            return
        lr_scheduler.base_lrs = [args.learning_rate] * len(lr_scheduler.base_lrs)
        for group, schedule in zip(optimizer.param_groups, schedules, strict=True):
            group["initial_lr"] = args.learning_rate
            group["lr"] = args.learning_rate * schedule(lr_scheduler.last_epoch)
        lr_scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]  # what the log shows


def build_trainer(
    body: Any,
    arguments: transformers.TrainingArguments,
    *,
    path: EnginePath,
    objective: Objective,
    run_plan: Plan,
    seed: int,
    store: Examples,
    lengths: Sequence[int],
    costs: Sequence[int] | None = None,
    held_out: Examples | None,
    beside: Beside | None = None,
    guard: FiniteGuard,
    save: Callable[[PreferenceTrainer], Path],
    callbacks: list[transformers.TrainerCallback],
) -> PreferenceTrainer:
    """The trainer of `body`: log-probs by the engine, loss by `objective`, checkpoints by `save`.

    `lengths` are the distinct tokens of each pair, `costs` what it takes of a micro-batch (the same where nothing is said). `beside` is
    what the objective reads besides: nothing, of pairs, where nothing is said.
    """
    beside = beside or Beside()
    settings = StepSettings(objective, lengths, costs or lengths, run_plan.pairs_per_step, run_plan.tokens_per_micro_batch, seed, beside)
    return PreferenceTrainer(
        trained_model(body, path, objective, beside, longest=max(lengths)),
        arguments,
        settings=settings,
        store=store,
        eval_store=held_out,
        guard=guard,
        save=save,
        callbacks=[ChangedSettingsApply(), *callbacks, SavedStepsAreLogged()],
    )


def trained_model(body: Any, path: EnginePath, objective: Objective, beside: Beside, *, longest: int) -> LogpsModel | ScoresModel:
    """The module around `body` that gives `objective` what it reads."""
    if beside.is_scored:
        return ScoresModel(body, path=path)
    with_prompt = reads_prompt(objective, beside)
    chunk_bytes, alone = head_bytes(body, longest), beside.chosen_alone
    return LogpsModel(body, path=path, reads=beside.reads, with_prompt=with_prompt, chosen_alone=alone, chunk_bytes=chunk_bytes)


def head_bytes(body: Any, longest: int) -> int:
    """fp32 logits that the head of `body` holds at a time for examples of up to `longest` distinct tokens, a policy's or a reference's."""
    return chunk_bytes_for(longest, body.config.get_text_config().vocab_size, next(body.parameters()).device.type)


def reads_prompt(objective: Objective, beside: Beside | None = None) -> bool:
    """Whether the loss depends on the log-probs of the prompt's own tokens, seen from its derivative for a pair made up."""
    beside = beside or Beside()
    if beside.reads != "pairs":
        return False
    one = torch.ones(1, dtype=torch.float64)
    parts = [CompletionLogps(total * one, one) for total in (-1.0, -2.0, -3.0)]
    prompt = parts[2].total.requires_grad_()
    pair = PairLogps(*parts)
    given = (pair, pair) if beside.references else (pair,)
    loss = step_loss(objective(*given), dict.fromkeys(UNITS, 1))
    return loss.requires_grad and torch.autograd.grad(loss, prompt, allow_unused=True)[0] is not None


def enable_checkpointing(body: Any) -> None:
    """Nothing; `body` recomputes activations. Non-reentrant, so that LoRA on a frozen base needs no input gradients."""
    enable = getattr(body, "activation_checkpointing_enable", None) or body.gradient_checkpointing_enable
    enable({"use_reentrant": False})

"""Everything that is decided before a run directory is touched: data checked, template chosen, steps planned, settings made whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers

from orpo.core.records import Reads
from orpo.core.tokens import Examples
from orpo.data.checks import CheckedData, check_data, count_overlap
from orpo.data.columns import parse_columns
from orpo.data.limits import Overlong
from orpo.data.store import TokenStore
from orpo.data.templates import Template
from orpo.engine.dropout import disable_dropout
from orpo.engine.memory import Setting
from orpo.engine.memory_free import free_bytes
from orpo.engine.paths import Path as EnginePath
from orpo.engine.precision import Precision, choose_precision
from orpo.errors import ConfigError
from orpo.objectives import catalogue
from orpo.pipeline.fitting import Wanted, advice_after_failure, part_lengths, settled, unshared, warning_text
from orpo.pipeline.part import Part
from orpo.training import models
from orpo.training.assemble import Plan, enable_checkpointing, plan
from orpo.training.beside import Objective
from orpo.training.checkpointing import RunIdentity, base_model_facts, run_identity
from orpo.training.config import ResolvedConfig, TrainConfig
from orpo.training.environment import environment, machine_line
from orpo.training.ranks import from_first

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that could start now. `lengths` are the distinct tokens of each training pair; `held_out` is None without held-out pairs."""

    config: TrainConfig
    tokenizer: Any
    shape: models.ModelShape
    new_token_ids: Sequence[int]
    store: Examples
    lengths: Sequence[int]
    held_out: Examples | None
    data_report: Mapping[str, Any]
    objective: Objective
    options: Mapping[str, Any]
    plan: Plan
    precision: Precision
    wanted: Wanted
    checkpointing: bool
    free_bytes: int
    identity: RunIdentity
    world_size: int

    @property
    def beta(self) -> float:
        """Weight of the odds ratio term; 0 for an objective without one."""
        return float(self.options.get("beta", 0.0))

    def cut_as(self, earlier: Mapping[str, Any]) -> Prepared:
        """The same with what 'auto' came to when the run began (`earlier`: its model section): a resumed run goes on to the last bit."""
        tokens, checkpointing = self.plan.tokens_per_micro_batch, self.checkpointing
        if self.config.tokens_per_micro_batch == "auto":
            tokens = int(earlier.get("tokens_per_micro_batch", tokens))
        if self.config.gradient_checkpointing == "auto":
            checkpointing = bool(earlier.get("gradient_checkpointing", checkpointing))
        return replace(self, plan=replace(self.plan, tokens_per_micro_batch=tokens), checkpointing=checkpointing)

    def longest_row(self) -> int:
        """Tokens of the longest row that the run will see, held-out ones too."""
        held = self.held_out if self.held_out is not None else ()
        rows = (len(held[i].prompt_ids) + max(map(len, held[i].completions)) for i in range(len(held)))
        return max(self.wanted.longest_row, max(rows, default=0))

    def costs(self, path: EnginePath) -> Sequence[int]:
        """What each training example takes of a micro-batch: its distinct tokens, or its prompt with each answer where none is shared."""
        if path is EnginePath.SHARED:
            return self.lengths
        return [int(cost) for cost in unshared(self.wanted.parts)]

    def memory_advice(self) -> str:
        """Settings that would fit where this run did not."""
        largest = self.wanted.largest_micro_batch(self.plan.tokens_per_micro_batch)
        tokens = self.plan.tokens_per_micro_batch
        return advice_after_failure(self.wanted, largest=largest, tokens=tokens, checkpointing=self.checkpointing, free=self.free_bytes)

    def model_section(self) -> dict[str, Any]:
        """What summary.json says about the model and the objective."""
        return {
            "model": str(self.config.model),
            "family": self.shape.family,
            "objective": self.config.objective,
            "options": dict(self.options),
            "beta": self.options.get("beta"),
            "dtype": str(self.precision.dtype).removeprefix("torch."),
            "max_steps": self.plan.max_steps,
            "is_adapter": self.config.use_peft,
            "tokens_per_micro_batch": self.plan.tokens_per_micro_batch,
            "gradient_checkpointing": self.checkpointing,
        }


def prepare(resolved: ResolvedConfig, say: Say) -> Prepared:
    """The run that `resolved` asks for. Raises ConfigError or DataError before a model is loaded or anything is written."""
    config = resolved.config
    for note in resolved.notes:
        say(f"note         {note}")
    say(f"machine      {machine_line(environment())}")
    require_trainable(config.objective)
    options = objective_options(config)
    objective = catalogue.bound(config.objective, options)
    shape, tokenizer = models.load_shape(str(config.model)), models.load_tokenizer(str(config.model))
    if config.use_peft:
        models.check_lora_targets(str(config.model), config.lora_target_modules)
    max_length = models.effective_max_length(config.max_length, shape, is_explicit=resolved.origins["max_length"] != "default")
    if max_length < config.max_length:
        say(f"note         max_length is {max_length:,}: this model has no more positions")
    data = checked_data(config, config.data, tokenizer, max_length=max_length)
    held = checked_data(config, config.eval_data, tokenizer, max_length=max_length, template=data.template) if config.eval_data else None
    store, template = store_and_template(data)
    for note in models.check_tokenizer(tokenizer, shape, str(config.model), num_new=len(template.new_tokens)):
        say(f"note         {note}")
    train_part, held_out = split_pairs(config, data, held)
    parts = part_lengths(store.lengths, train_part.indices)
    lengths = parts.sum(axis=1).tolist()
    report = split_report(data, held, train_part, held_out)
    say_data(report, data, say)
    run_plan = plan(config, lengths)
    # Measured once, for all ranks: two ranks must not compute in different dtypes.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = from_first(lambda: choose_precision(config.dtype, device))
    wanted = Wanted(config, len(tokenizer), tuple(template.new_token_ids), precision.dtype, device.type, parts, run_plan)
    free = free_bytes(device.type)
    setting = _setting(wanted, free, say)
    run_plan = replace(run_plan, tokens_per_micro_batch=setting.tokens)
    _say_plan(config, options, run_plan, precision, say)
    resolved_values = {
        "precision": str(precision.dtype),
        "options": dict(options),
        "max_length": max_length,
        "max_steps": run_plan.max_steps,
    }
    identity = run_identity(config, resolved=resolved_values, data=data.fingerprint, base_model=base_model_facts(str(config.model)))
    return Prepared(
        config=config,
        tokenizer=tokenizer,
        shape=shape,
        new_token_ids=template.new_token_ids,
        store=train_part,
        lengths=lengths,
        held_out=held_out,
        data_report=report,
        objective=objective,
        options=options,
        plan=run_plan,
        precision=precision,
        wanted=wanted,
        checkpointing=setting.checkpointing,
        free_bytes=free,
        identity=identity,
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
    )


def _setting(wanted: Wanted, free: int, say: Say) -> Setting:
    """What 'auto' comes to in `free` bytes, the same on all ranks; a run that does not fit is said to."""
    setting = from_first(lambda: settled(wanted, free))
    if not setting.fits:
        say(f"warning      {from_first(lambda: warning_text(wanted, setting, free))}")
    return setting


def require_trainable(objective: str) -> None:
    """Nothing; raises ConfigError for an objective that a run cannot train yet: one on the scores of a scalar head."""
    if catalogue.reads(objective) == "scores":
        raise ConfigError(f"objective {objective} cannot be trained from this command yet", fix="choose an objective on log-probs")


def reads_of(objective: str) -> Reads:
    """What the data of `objective` are checked and tokenized as."""
    reads = catalogue.reads(objective)
    return "pairs" if reads == "scores" else reads


def objective_options(config: TrainConfig) -> dict[str, Any]:
    """Every option of the objective with its value: what was given, else the default in its signature."""
    defaults = {option.name: option.default for option in catalogue.objective_options(config.objective)}
    return {**defaults, **config.objective_options}


def checked_data(
    config: TrainConfig, paths: Sequence[str], tokenizer: Any, *, max_length: int, template: Template | None = None
) -> CheckedData:
    """All rows of `paths` checked and tokenized in one pass, by `template` where one is resolved. Raises DataError naming file and line."""
    data = check_data(
        paths,
        tokenizer=tokenizer,
        template=template or config.template,
        columns=parse_columns(config.columns) if config.columns else None,
        max_length=max_length,
        overlong=cast(Overlong, config.overlong),
        max_bad_rows=config.max_bad_rows,
        pair_labelled=config.pair_labelled,
        reads=reads_of(config.objective),
    )
    data.raise_if_errors()
    return data


def store_and_template(data: CheckedData) -> tuple[TokenStore, Template]:
    """The tokenized pairs and the template of data that were checked with a tokenizer."""
    assert data.store is not None, "checked without a tokenizer"
    assert data.template is not None, "checked without a tokenizer"
    return data.store, data.template


def split_pairs(config: TrainConfig, data: CheckedData, held: CheckedData | None) -> tuple[Part, Part | None]:
    """Training and held-out pairs: from two sources, or a seeded share of one. Raises ConfigError when nothing is left to train on."""
    store, _ = store_and_template(data)
    num = len(store)
    if held is not None:
        held_store, _ = store_and_template(held)
        return Part(store, range(num)), Part(held_store, range(len(held_store)))
    num_held = round(config.holdout * num) if 0 < config.holdout < 1 else int(config.holdout)
    if not num_held:
        return Part(store, range(num)), None
    if num_held >= num:
        raise ConfigError(f"holdout takes {num_held} of {num} pairs and leaves none to train on", fix="hold out fewer")
    # A stream of its own: the order of training pairs must not depend on how many are held out.
    order = np.random.default_rng([config.seed, 2**32]).permutation(num)
    return Part(store, np.sort(order[num_held:]).tolist()), Part(store, np.sort(order[:num_held]).tolist())


def load_body(prepared: Prepared, checkpoint: Path | None, say: Say) -> Any:
    """The model to train, on its device: from the base, or as `checkpoint` has it. New token rows and LoRA weights are seeded."""
    config = prepared.config
    transformers.set_seed(config.seed)
    dtype = prepared.precision.dtype if config.use_peft else torch.float32
    source = models.located(str(config.model)) if config.use_peft or checkpoint is None else str(checkpoint)
    body = models.load_model(source, dtype=dtype)
    if config.use_peft or checkpoint is None:
        models.add_token_rows(body, len(prepared.tokenizer), prepared.new_token_ids, seed=config.seed)
    models.ends_with(body, prepared.tokenizer)
    if config.disable_dropout and disable_dropout(body):
        say("note         dropout in the model is off (disable_dropout: false keeps it)")
    if config.use_peft:
        body = models.with_lora(body, config, new_ids=prepared.new_token_ids)
        if checkpoint is not None:
            models.load_adapter(body, checkpoint)
    if prepared.checkpointing:
        enable_checkpointing(body)
        if config.gradient_checkpointing == "auto":
            say("memory       gradient checkpointing on: the longest pair, or the budget asked for, does not fit without it")
    num = num_parameters(body)
    say(f"model        {config.model}: {num['parameters'] / 1e6:,.2f} M parameters, {num['trainable_parameters'] / 1e6:,.2f} M trained")
    return body.to("cuda" if torch.cuda.is_available() else "cpu")


def num_parameters(body: Any) -> dict[str, int]:
    """How many parameters `body` has, and how many of them are trained."""
    parameters = list(body.parameters())
    return {
        "parameters": sum(int(p.numel()) for p in parameters),
        "trainable_parameters": sum(int(p.numel()) for p in parameters if p.requires_grad),
    }


def _say_plan(config: TrainConfig, options: Mapping[str, Any], run_plan: Plan, precision: Precision, say: Say) -> None:
    shown = ", ".join(f"{name} {value}" for name, value in options.items())
    say(f"objective    {config.objective} ({shown})")
    say(
        f"steps        {run_plan.max_steps} of {run_plan.pairs_per_step} pairs "
        f"({run_plan.max_steps / run_plan.steps_per_epoch:.3g} epochs), up to {run_plan.tokens_per_micro_batch:,} tokens at once"
    )
    say(f"dtype        {str(precision.dtype).removeprefix('torch.')} ({precision.reason})")


def split_report(data: CheckedData, held: CheckedData | None, train_part: Part, held_out: Part | None) -> dict[str, Any]:
    """What data_report.json says: the check of the training data, how it was split, and the check of the held-out data."""
    report: dict[str, Any] = {**data.report.as_dict(), "trained_on": len(train_part), "held_out": len(held_out) if held_out else 0}
    if held is not None:
        report["eval_data"] = held.report.as_dict()
        report["held_out_prompts_also_trained_on"] = count_overlap(data, held)
    return report


def say_data(report: Mapping[str, Any], data: CheckedData, say: Say) -> None:
    """One line on the data, one on the template, one for each kind of row dropped or warned about."""
    say(f"data         {report['rows']:,} rows, {report['pairs']:,} pairs, shape {report['shape']}")
    held = f"{report['held_out']:,} held out" if report["held_out"] else "none held out (--holdout 0.05, or --eval-data FILE)"
    say(f"pairs        {report['trained_on']:,} to train on, {held}")
    _, template = store_and_template(data)
    say(f"template     {template.description}")
    for note in template.notes:
        say(f"note         {note}")
    for severity in ("dropped", "warnings"):
        for kind, num in report[severity].items():
            say(f"{'dropped' if severity == 'dropped' else 'warning':<13}{num:,} x {kind}")
    if report.get("held_out_prompts_also_trained_on"):
        say(f"warning      {report['held_out_prompts_also_trained_on']:,} held-out prompts are also in the training data")

"""Everything that is decided before a run directory is touched: data checked, template chosen, steps planned, settings made whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from orpo.core.logps import PairScores
from orpo.core.tokens import Examples
from orpo.engine.dropout import disable_dropout
from orpo.engine.memory import Setting
from orpo.engine.memory_free import free_bytes
from orpo.engine.paths import Path as EnginePath
from orpo.engine.precision import Precision, choose_precision
from orpo.engine.views import viewed
from orpo.objectives import catalogue
from orpo.pipeline.fitting import Wanted, advice_after_failure, part_lengths, settled, unshared, warning_text
from orpo.pipeline.given import NOTHING, Given
from orpo.pipeline.run_data import checked_sources, is_scored, reads_of, say_data, split_pairs, split_report, store_and_template
from orpo.training import models
from orpo.training.assemble import Plan, enable_checkpointing, plan
from orpo.training.beside import Objective
from orpo.training.checkpointing import RunIdentity, run_identity
from orpo.training.config import ResolvedConfig, TrainConfig
from orpo.training.config_check import require_bitsandbytes
from orpo.training.environment import environment, machine_line
from orpo.training.four_bit import num_weights
from orpo.training.mismatched import require_two
from orpo.training.ranks import from_first, require_ranks, world_size

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
    given: Given = NOTHING

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
            "load_in_4bit": self.config.load_in_4bit,
            "tokens_per_micro_batch": self.plan.tokens_per_micro_batch,
            "gradient_checkpointing": self.checkpointing,
        }


def prepare(resolved: ResolvedConfig, say: Say, *, given: Given = NOTHING) -> Prepared:
    """The run that `resolved` asks for, with what is `given` in memory. Raises ConfigError or DataError before anything is written."""
    config = resolved.config
    for note in resolved.notes:
        say(f"note         {note}")
    say(f"machine      {machine_line(environment())}")
    require_ranks(config.num_processes, config.sharding)
    given.require_whole(config)
    require_bitsandbytes(config, resolved.origins)
    options = objective_options(config)
    objective = catalogue.bound(config.objective, options)
    architecture, tokenizer = given.architecture(config), given.tokenizer_of(config)
    shape = checked_shape(config, architecture)
    max_length = max_length_of(resolved, shape)
    if max_length < config.max_length:
        say(f"note         max_length is {max_length:,}: this model has no more positions")
    data, held = checked_sources(config, tokenizer, max_length=max_length, max_positions=shape.max_positions, opened=given.rows)
    store, template = store_and_template(data)
    for note in models.check_tokenizer(tokenizer, shape, str(config.model), num_new=len(template.new_tokens)):
        say(f"note         {note}")
    train_part, held_out = split_pairs(config, data, held)
    require_fit(config, objective, train_part, held_out)
    parts = part_lengths(store.lengths, train_part.indices, chosen_alone=train_part.chosen_alone)
    lengths = parts.sum(axis=1).tolist()
    report = split_report(data, held, train_part, held_out)
    say_data(report, data, say)
    run_plan = plan(config, lengths)
    # Measured once, for all ranks: two ranks must not compute in different dtypes.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = from_first(lambda: choose_precision(config.dtype, device))
    new_ids = tuple(template.new_token_ids)
    wanted = Wanted(config, len(tokenizer), new_ids, precision.dtype, device.type, parts, run_plan, architecture, world_size())
    free = free_bytes(device.type)
    setting = _setting(wanted, free, say)
    run_plan = replace(run_plan, tokens_per_micro_batch=setting.tokens)
    _say_plan(config, options, run_plan, precision, say)
    came_to = {"precision": str(precision.dtype), "options": dict(options), "max_length": max_length, "max_steps": run_plan.max_steps}
    identity = run_identity(config, resolved=came_to, data=data.fingerprint, base_model=given.base_model(config))
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
        world_size=world_size(),
        given=given,
    )


def checked_shape(config: TrainConfig, architecture: Any) -> models.ModelShape:
    """The shape of the model. Raises ConfigError where its weights, or the places for its adapters, are not what the settings take."""
    shape = models.shape_of(architecture, str(config.model))
    models.check_weights(shape, str(config.model), load_in_4bit=config.load_in_4bit)
    if config.use_peft:
        models.check_lora_targets(str(config.model), config.lora_target_modules, architecture=architecture)
    return shape


def max_length_of(resolved: ResolvedConfig, shape: models.ModelShape) -> int:
    """Tokens of the longest row: as set, or as many as the model has positions where nobody set it."""
    return models.effective_max_length(resolved.config.max_length, shape, is_explicit=resolved.origins["max_length"] != "default")


def _setting(wanted: Wanted, free: int, say: Say) -> Setting:
    """What 'auto' comes to in `free` bytes, the same on all ranks; a run that does not fit is said to."""
    setting = from_first(lambda: settled(wanted, free))
    if not setting.fits:
        say(f"warning      {from_first(lambda: warning_text(wanted, setting, free))}")
    return setting


def require_fit(config: TrainConfig, objective: Objective, train_part: Examples, held_out: Examples | None) -> None:
    """Nothing; raises ConfigError where these examples are not enough for the objective: it is tried on the first, on made-up log-probs."""
    name, first = config.objective, [train_part[0]]
    made_up = torch.full((len(first[0].completions),), -1.0, dtype=torch.float64)
    alone = catalogue.learns_chosen_alone(name)
    given: list[Any] = [viewed(made_up, first, reads=reads_of(name), prompts=made_up[:1], chosen_alone=alone)]
    if is_scored(name):
        given = [PairScores(made_up[:1], made_up[1:])]
    if catalogue.needs_reference(name):
        given.append(viewed(made_up, first, reads=reads_of(name)))
    if catalogue.needs_baseline(name):
        given.append(made_up.new_zeros(()))
        for part in (train_part, held_out):
            if part is not None:
                require_two(len(part), config.pairs_per_step)
    objective(*given)


def objective_options(config: TrainConfig) -> dict[str, Any]:
    """Every option of the objective with its value: what was given, else the default in its signature."""
    defaults = {option.name: option.default for option in catalogue.objective_options(config.objective)}
    return {**defaults, **config.objective_options}


def load_body(prepared: Prepared, checkpoint: Path | None, say: Say) -> Any:
    """The model to train, on its device: from the base, or as `checkpoint` has it. New token rows and LoRA weights are seeded."""
    config = prepared.config
    transformers.set_seed(config.seed)
    body = _base(prepared, checkpoint)
    if config.use_peft or checkpoint is None:
        models.add_token_rows(body, len(prepared.tokenizer), prepared.new_token_ids, seed=config.seed)
    models.ends_with(body, prepared.tokenizer)
    if config.disable_dropout and disable_dropout(body):
        say("note         dropout in the model is off (disable_dropout: false keeps it)")
    if config.use_peft:
        body = body if hasattr(body, "peft_config") else models.with_lora(body, config, new_ids=prepared.new_token_ids)
        if checkpoint is not None:
            models.load_adapter(body, checkpoint)
    if prepared.checkpointing:
        enable_checkpointing(body)
        if config.gradient_checkpointing == "auto":
            say("memory       gradient checkpointing on: the longest pair, or the budget asked for, does not fit without it")
    num = num_parameters(body)
    held, trained = " in 4 bits" if config.load_in_4bit else "", num["trainable_parameters"] / 1e6
    say(f"model        {config.model}: {num['parameters'] / 1e6:,.2f} M parameters{held}, {trained:,.2f} M trained")
    return body.to("cuda" if torch.cuda.is_available() else "cpu")


def _base(prepared: Prepared, checkpoint: Path | None) -> Any:
    """The model before adapters: what was given, else the base by its name, or what `checkpoint` holds of all weights."""
    config = prepared.config
    dtype = prepared.precision.dtype if config.use_peft else torch.float32
    if prepared.given.model is not None:
        return prepared.given.body(dtype, checkpoint)
    source = models.located(str(config.model)) if config.use_peft or checkpoint is None else str(checkpoint)
    if not is_scored(config.objective):
        return models.load_model(source, dtype=dtype, load_in_4bit=config.load_in_4bit)
    body = models.load_scorer(source, dtype=dtype, load_in_4bit=config.load_in_4bit)
    if not config.use_peft:
        models.pads_with(body, prepared.tokenizer)
    return body


def num_parameters(body: Any) -> dict[str, int]:
    """How many parameters `body` has, and how many of them are trained."""
    parameters = list(body.parameters())
    return {
        "parameters": sum(num_weights(p) for p in parameters),
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
    if config.optim.startswith("paged") and not torch.cuda.is_available():
        say(f"note         {config.optim} pages nothing out here: that takes a GPU")

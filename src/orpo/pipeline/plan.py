"""What a run would do and need, worked out as training does it, with no weights opened and nothing written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orpo.engine.batching import micro_batches, step_pairs
from orpo.engine.memory import MemoryNeed
from orpo.engine.memory_free import free_bytes
from orpo.engine.precision import choose_precision
from orpo.objectives.catalogue import needs_reference
from orpo.pipeline.cost import passes
from orpo.pipeline.fitting import Remedy, Wanted, part_lengths, remedies, row_lengths, run_need, settled, unshared, usable
from orpo.pipeline.prepare import checked_shape, max_length_of
from orpo.pipeline.run_data import checked_sources, say_data, split_pairs, split_report, store_and_template
from orpo.training import models
from orpo.training.assemble import plan
from orpo.training.config import ResolvedConfig
from orpo.training.config_fields import reference_way
from orpo.training.environment import environment, machine_line
from orpo.training.ranks import planned_ranks

STEPS_SEEN = 2000
"""Steps whose micro-batches are averaged: quick for a million pairs. The largest is that of all steps."""

DATA_SHOWN = ("rows", "pairs", "shape", "trained_on", "held_out", "dropped", "warnings", "template")
"""What `--json` repeats of the data report; `orpo check` has the rest."""


@dataclass(frozen=True, slots=True)
class Work:
    """The tokens of a run. Shares are of the tokens that a trainer of padded rows, prompts twice, would compute."""

    num_pairs: int
    max_steps: int
    pairs_per_step: int
    tokens_per_step: float
    num_tokens: int
    micro_batches_per_step: float
    largest_micro_batch: int
    accumulates: bool
    longest_pair: int
    longest_row: int
    padding_share: float
    shared_share: float


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What `orpo plan` shows. `available_bytes` is what may be used of what is free, and what this process holds already.

    `data` is what data_report.json would say, `data_lines` the same as training prints it. `passes` are those of cost.py, over the whole
    run; `reference` is how the reference is had: precomputed, copy or adapter; '' where the objective needs none.
    """

    machine: str
    model: str
    num_parameters: int
    num_trained: int
    has_weights: bool
    data: Mapping[str, Any]
    data_lines: tuple[str, ...]
    dtype: str
    dtype_reason: str
    checkpointing: bool
    tokens_per_micro_batch: int
    work: Work
    passes: Mapping[str, int]
    reference: str
    need: MemoryNeed
    available_bytes: int
    estimated: str
    remedies: tuple[Remedy, ...]

    @property
    def fits(self) -> bool:
        """Whether the peak is within what is available."""
        return self.need.peak_bytes <= self.available_bytes

    def as_dict(self) -> dict[str, Any]:
        """The object that `orpo plan --json` prints."""
        work = {name: getattr(self.work, name) for name in Work.__slots__}
        memory = {**self.need.parts, "peak": self.need.peak_bytes, "available": self.available_bytes, "moment": self.need.moment}
        return {
            "fits": self.fits,
            "model": self.model,
            "parameters": self.num_parameters,
            "trained_parameters": self.num_trained,
            "has_weights": self.has_weights,
            "data": {name: self.data[name] for name in DATA_SHOWN},
            "dtype": self.dtype,
            "gradient_checkpointing": self.checkpointing,
            "tokens_per_micro_batch": self.tokens_per_micro_batch,
            **work,
            "reference": self.reference or None,
            **self.passes,
            "memory_bytes": memory,
            "estimated": self.estimated or None,
            "fitting_settings": [{"settings": dict(r.settings), "peak_bytes": r.peak_bytes, "note": r.note} for r in self.remedies],
        }


def run_plan(resolved: ResolvedConfig, *, free: int | None = None) -> RunPlan:
    """The plan of the run that `resolved` asks for, on this machine or with `free` bytes.

    Raises ConfigError and DataError as training does.
    """
    config = resolved.config
    architecture, tokenizer = models.load_architecture(str(config.model)), models.load_tokenizer(str(config.model))
    shape = checked_shape(config, architecture)
    max_length = max_length_of(resolved, shape)
    data, held = checked_sources(config, tokenizer, max_length=max_length, max_positions=shape.max_positions)
    store, template = store_and_template(data)
    models.check_tokenizer(tokenizer, shape, str(config.model), num_new=len(template.new_tokens))
    part, held_out = split_pairs(config, data, held)
    parts = part_lengths(store.lengths, part.indices, chosen_alone=part.chosen_alone)
    steps = plan(config, parts.sum(axis=1).tolist())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = choose_precision(config.dtype, torch.device(device))
    ranks = planned_ranks(config.num_processes)
    share = ranks if device == "cpu" and "LOCAL_WORLD_SIZE" not in os.environ else 1  # processes of a machine share its memory
    free = free_bytes(device) // share if free is None else free
    new_ids = tuple(template.new_token_ids)
    wanted = Wanted(config, len(tokenizer), new_ids, precision.dtype, device, parts, steps, num_ranks=ranks)
    memory = wanted.memory()
    setting = settled(wanted, free, memory=lambda: memory)
    tokens, checkpointing = setting.tokens, setting.checkpointing
    work = work_of(wanted, tokens)
    need = run_need(wanted, memory, setting)
    there = need.process + need.data
    found: tuple[Remedy, ...] = ()
    if need.new_bytes > usable(free):
        found = remedies(wanted, memory, work.largest_micro_batch, free, tokens=tokens, checkpointing=checkpointing)
    report = split_report(data, held, part, held_out)
    said: list[str] = []
    say_data(report, data, said.append)
    return RunPlan(
        machine=machine_line(environment()),
        model=str(config.model),
        num_parameters=memory.sizes.num_parameters,
        num_trained=memory.sizes.num_trained,
        has_weights=has_weights(str(config.model)),
        data=report,
        data_lines=tuple(said),
        dtype=str(precision.dtype).removeprefix("torch."),
        dtype_reason=precision.reason,
        checkpointing=checkpointing,
        tokens_per_micro_batch=tokens,
        work=work,
        passes=passes(config, steps.max_steps, parts.sum(axis=1).tolist()),
        reference=reference_way(config) if needs_reference(config.objective) else "",
        need=need,
        available_bytes=usable(free) + there,
        estimated=memory.traces(checkpointing)[0].estimated or ("" if config.sharding == "none" else "what is whole at a time"),
        remedies=found,
    )


def has_weights(model: str) -> bool:
    """Whether `model` is a folder with weights; of a name on the Hub it is taken to be so."""
    folder = Path(models.located(model))
    return not folder.is_dir() or any(folder.glob("*.safetensors"))


def work_of(wanted: Wanted, budget: int) -> Work:
    """The work of a run under a token budget, averages from its first STEPS_SEEN steps; totals are scaled up to all steps."""
    config, steps, parts = wanted.config, wanted.steps, wanted.parts
    totals, rows = parts.sum(axis=1), row_lengths(parts)
    twice = unshared(parts)
    seen = min(steps.max_steps, STEPS_SEEN)
    bins: list[int] = []
    tokens = padded = real = 0
    for step in range(seen):
        members = step_pairs(len(parts), config.pairs_per_step, seed=config.seed, step=step)
        lengths = [int(totals[i]) for i in members]
        cut = micro_batches(lengths, budget, num_ranks=wanted.num_ranks)[0]
        bins.append(len(cut))
        tokens += sum(lengths)
        real += int(twice[members].sum())
        padded += int((parts[members, 1:] > 0).sum()) * int(rows[members].max())
    # At least one step of at least one pair, whose rows are not empty: nothing here divides by zero.
    return Work(
        num_pairs=len(parts),
        max_steps=steps.max_steps,
        pairs_per_step=config.pairs_per_step,
        tokens_per_step=tokens / seen,
        num_tokens=round(tokens / seen * steps.max_steps),
        micro_batches_per_step=sum(bins) / seen,
        largest_micro_batch=wanted.largest_micro_batch(budget),
        accumulates=wanted.accumulates(budget),
        longest_pair=int(totals.max()),
        longest_row=int(rows.max()),
        padding_share=1 - real / padded,
        shared_share=(real - tokens) / real,
    )

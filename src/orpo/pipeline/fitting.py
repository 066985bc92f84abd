"""Which settings fit into memory: what is to be trained enters; tokens at once, checkpointing, and what else would fit leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orpo.data.store import Lengths
from orpo.engine.batching import heaviest_cut
from orpo.engine.memory import (
    SHARE_OF_FREE,
    MemoryModel,
    MemoryNeed,
    Setting,
    Surroundings,
    chosen_setting,
    memory_model,
    rough_memory_model,
)
from orpo.engine.memory_free import process_bytes
from orpo.engine.packed import chunk_bytes_for
from orpo.objectives.catalogue import needs_reference
from orpo.training import models
from orpo.training.assemble import Plan
from orpo.training.config import TrainConfig
from orpo.training.config_fields import reference_way
from orpo.training.weightless import model_builder

NO_DOUBT = 2.0
"""A run that fits this many times by a rough estimate fits."""

KEPT_BACK = 0.1
"""Share of free memory that a run is not planned to use: the account of its memory is off by a few per cent."""

SMALLEST_CUT = 0.125
"""A max_length below this share of the longest row is not offered: it would be another data set."""

PartLengths = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Remedy:
    """Settings that fit, and the peak with them. `note` says what they cost."""

    settings: Mapping[str, Any]
    peak_bytes: int
    note: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be trained, before weights are there. `parts` [examples, 1 + K]: tokens of the prompt and of each of K completions.
    `architecture` is the model's config; None looks it up by the model's name. `num_ranks` processes train together."""

    config: TrainConfig
    num_tokens: int
    new_ids: Sequence[int]
    dtype: torch.dtype
    device: str
    parts: PartLengths
    steps: Plan
    architecture: Any = None
    num_ranks: int = 1

    @property
    def longest(self) -> int:
        """Distinct tokens of the longest pair."""
        return int(self.parts.sum(axis=1).max())

    @property
    def longest_row(self) -> int:
        """Tokens of the longest prompt with one completion."""
        return int(row_lengths(self.parts).max())

    def largest_micro_batch(self, budget: int) -> int:
        """The most tokens that any rank computes at once in any step of the run."""
        totals = self.parts.sum(axis=1)
        members = self._largest(totals.tolist(), budget, num_ranks=self.num_ranks)
        return int(totals[members].sum())

    def accumulates(self, budget: int) -> bool:
        """Whether a rank may have several micro-batches in a step; exact for one rank, never wrongly false for more.

        Any two bins of a best-fit cut hold more than one budget together: k bins hold more than k budgets / 2.
        """
        totals = self.parts.sum(axis=1)
        largest_step = int(totals[self._largest(totals.tolist(), int(totals.sum()), num_ranks=1)].sum())
        return 2 * largest_step > (self.num_ranks + 1) * budget

    def _largest(self, totals: list[int], budget: int, *, num_ranks: int) -> list[int]:
        pairs, seed, steps = self.config.pairs_per_step, self.config.seed, range(self.steps.max_steps)
        return heaviest_cut(totals, pairs, budget, seed=seed, steps=steps, num_ranks=num_ranks)[0]

    def memory(self) -> MemoryModel:
        """The memory of a step of this run, counted: seconds for a large model."""
        return memory_model(self._builder(), self._around(), row_length=self.longest_row)

    def rough_memory(self) -> MemoryModel:
        """The same, estimated in no time."""
        return rough_memory_model(self._builder(), self._around(), row_length=self.longest_row)

    def _builder(self) -> Callable[[bool], Any]:
        return model_builder(self.config, self.num_tokens, self.new_ids, self.dtype, architecture=self.architecture)

    def _around(self) -> Surroundings:
        architecture = self.architecture or models.load_architecture(str(self.config.model))
        vocabulary = max(self.num_tokens, models.shape_of(architecture, str(self.config.model)).vocabulary)
        return Surroundings(
            dtype=self.dtype,
            optimizer=self.config.optim,
            device=self.device,
            num_ranks=self.num_ranks,
            is_sharded=self.config.sharding == "fsdp",
            chunk_bytes=chunk_bytes_for(self.longest, vocabulary, self.device),
            process=process_bytes(self.device),
            keeps_copy=needs_reference(self.config.objective) and reference_way(self.config) == "copy",
            data=0 if self.device == "cuda" else 4 * int(self.parts.sum()),
        )


def part_lengths(lengths: Lengths, indices: Sequence[int], *, chosen_alone: bool = False) -> PartLengths:
    """Tokens of the prompt and of each completion of the examples `indices` of a store with `lengths`: [examples, 1 + K].

    K is the most completions that one of them has; 0 stands where an example has fewer, for no completion is empty. With `chosen_alone`
    it is 1, the first of each.
    """
    chosen = np.asarray(indices)
    starts, nums = lengths.first[chosen], lengths.num_completions[chosen]
    columns = [lengths.prompt[chosen]]
    for k in range(1 if chosen_alone else int(nums.max())):
        columns.append(np.where(nums > k, lengths.completions[np.minimum(starts + k, len(lengths.completions) - 1)], 0))
    table: PartLengths = np.stack(columns, axis=1)
    return table


def unshared(parts: PartLengths) -> PartLengths:
    """Tokens of each example where its prompt stands before each of its completions."""
    tokens: PartLengths = parts.sum(axis=1) + parts[:, 0] * ((parts[:, 1:] > 0).sum(axis=1) - 1)
    return tokens


def row_lengths(parts: PartLengths) -> PartLengths:
    """Tokens of the longest row of each example: its prompt with its longest completion."""
    rows: PartLengths = parts[:, 0] + parts[:, 1:].max(axis=1)
    return rows


def usable(free: int) -> int:
    """What a run may be planned to use of `free` bytes."""
    return int(free * (1 - KEPT_BACK))


def settled(wanted: Wanted, free: int, *, memory: Callable[[], MemoryModel] | None = None) -> Setting:
    """Tokens at once and checkpointing, for what the settings leave to 'auto', in `free` bytes, and whether the run fits with them.

    The model is counted (by `memory`, once made) only where a rough estimate leaves doubt.
    """
    config = wanted.config
    given = None if config.tokens_per_micro_batch == "auto" else int(config.tokens_per_micro_batch)
    at_most = wanted.steps.tokens_per_micro_batch
    if wanted.device == "cuda":
        at_most = int(np.sort(wanted.parts.sum(axis=1))[-config.pairs_per_step :].sum())
    choice = {"auto": None, "on": True, "off": False}[config.gradient_checkpointing]
    asked = given or max(at_most, wanted.longest)
    rough = wanted.rough_memory().need(asked, checkpointing=bool(choice)).new_bytes
    if NO_DOUBT * rough <= SHARE_OF_FREE[wanted.device] * free:
        return Setting(asked, bool(choice), fits=True)
    counted = (memory or wanted.memory)()
    if choice is not None and given is not None:
        return _with_fits(wanted, counted, Setting(given, choice, fits=True), free)
    setting = chosen_setting(counted, free, longest=wanted.longest, at_most=at_most, budget=given, checkpointing=choice)
    return _with_fits(wanted, counted, setting, free)


def _with_fits(wanted: Wanted, memory: MemoryModel, setting: Setting, free: int) -> Setting:
    """`setting`; it fits where the largest micro-batch that the run will have does."""
    return replace(setting, fits=run_need(wanted, memory, setting).new_bytes <= usable(free))


def run_need(wanted: Wanted, memory: MemoryModel, setting: Setting) -> MemoryNeed:
    """The need of the largest micro-batch of the run with `setting`."""
    tokens, accumulates = wanted.largest_micro_batch(setting.tokens), wanted.accumulates(setting.tokens)
    return memory.need(tokens, checkpointing=setting.checkpointing, accumulates=accumulates)


def warning_text(wanted: Wanted, setting: Setting, free: int) -> str:
    """What to say of a run that does not fit with `setting`: what it needs, what is free, and up to two settings that would fit."""
    memory = wanted.memory()
    need = run_need(wanted, memory, setting).new_bytes
    largest = wanted.largest_micro_batch(setting.tokens)
    found = remedies(wanted, memory, largest, free, tokens=setting.tokens, checkpointing=setting.checkpointing)
    what = f"this run needs about {need / 2**30:.1f} GiB more memory, {free / 2**30:.1f} GiB are free"
    return f"{what}; would fit: {fitting_text(found)}" if found else f"{what}; {fitting_text(found)}"


def remedies(wanted: Wanted, memory: MemoryModel, largest: int, free: int, *, tokens: int, checkpointing: bool) -> tuple[Remedy, ...]:
    """Up to two settings that fit, cheapest first: fewer tokens at once, recomputation, LoRA, 4 bits, a shorter max_length.

    Each is checked by the same model of memory as the plan itself; settings that compute the same come before those that do not.
    """
    config, found = wanted.config, list[Remedy]()

    def offer(changed: MemoryModel, settings: dict[str, Any], note: str, *, recompute: bool, longest: int) -> None:
        most = changed.tokens_that_fit(usable(free), checkpointing=recompute, at_most=max(tokens, longest))
        if most < longest or len(found) == 2:
            return
        if most < tokens:
            most = max(longest, most // 64 * 64)
            settings = {**settings, "tokens_per_micro_batch": most}
        need = changed.need(min(most, largest), checkpointing=recompute)
        found.append(Remedy(settings, need.peak_bytes, note))

    same = "the result stays the same"
    offer(memory, {}, same, recompute=checkpointing, longest=wanted.longest)
    if not checkpointing:
        offer(memory, {"gradient_checkpointing": "on"}, f"{same}; a third more arithmetic", recompute=True, longest=wanted.longest)
    light: dict[str, Any] = {} if config.use_peft else {"use_peft": True}
    if light and len(found) < 2:
        wanted = replace(wanted, config=replace(config, use_peft=True))
        memory = wanted.memory()
        for recompute in (False, True):
            settings = {**light, "gradient_checkpointing": "on" if recompute else "off"}
            offer(memory, settings, "trains adapters in place of all weights", recompute=recompute, longest=wanted.longest)
    if not config.load_in_4bit and len(found) < 2:
        light = {**light, "load_in_4bit": True}
        wanted = replace(wanted, config=replace(wanted.config, load_in_4bit=True))
        memory = wanted.memory()
        for recompute in (False, True):
            settings = {**light, "gradient_checkpointing": "on" if recompute else "off"}
            offer(memory, settings, "frozen weights in 4 bits under adapters", recompute=recompute, longest=wanted.longest)
    for cut in shorter_lengths(wanted.parts) if len(found) < 2 and config.overlong != "error" else ():
        kept, note = _cut(wanted.parts, cut, cuts_completions=config.overlong == "cut-completion")
        settings = {**light, "max_length": cut, "gradient_checkpointing": "on"}
        changed = replace(wanted, parts=kept)  # shorter rows are counted anew: a trace says nothing below its own row
        offer(changed.memory(), settings, note, recompute=True, longest=changed.longest)
    return tuple(found)


def _cut(parts: PartLengths, length: int, *, cuts_completions: bool) -> tuple[PartLengths, str]:
    """What max_length `length` leaves of `parts`, and how much that takes away, in words."""
    if not cuts_completions:
        kept: PartLengths = parts[row_lengths(parts) <= length]
        return kept, f"drops {len(parts) - len(kept):,} of {len(parts):,} pairs"
    room = length - parts[:, :1]
    cut: PartLengths = np.concatenate([parts[:, :1], np.minimum(parts[:, 1:], room)], axis=1)[room[:, 0] > 0]
    num_cut = int((parts[:, 1:] > room)[room[:, 0] > 0].sum())
    dropped = f", drops {len(parts) - len(cut):,} of {len(parts):,} pairs" if len(cut) < len(parts) else ""
    return cut, f"cuts {num_cut:,} completions{dropped}"


def shorter_lengths(parts: PartLengths) -> list[int]:
    """Lengths to cut rows to, longest first, each of which leaves at least one pair."""
    rows = row_lengths(parts)
    longest = int(rows.max())
    cuts = [int(longest * share) for share in (0.75, 0.5, 0.25, SMALLEST_CUT)]
    return [cut for cut in cuts if cut >= 2 and bool((rows <= cut).any())]


def advice_after_failure(wanted: Wanted, *, largest: int, tokens: int, checkpointing: bool, free: int) -> str:
    """Two settings for a step that ran out of memory although it was planned to fit: they need at most 0.8 of it."""
    memory = wanted.memory()
    failed = memory.need(largest, checkpointing=checkpointing).new_bytes
    return fitting_text(remedies(wanted, memory, largest, min(free, failed * 4 // 5), tokens=tokens, checkpointing=checkpointing))


def fitting_text(found: Sequence[Remedy]) -> str:
    """`found` as one line for a message; what to do where there is none."""
    if not found:
        return "no setting fits here: train a smaller model, or on a machine with more memory"
    lines = [", ".join(f"{name}: {shown(value)}" for name, value in remedy.settings.items()) for remedy in found]
    return "; or ".join(f"{line} ({remedy.peak_bytes / 2**30:.1f} GiB, {remedy.note})" for line, remedy in zip(lines, found, strict=True))


def shown(value: Any) -> str:
    """A setting's value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Names of other tools enter, our names leave, with a note for each. Two names for one setting must agree."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from orpo.errors import ConfigError
from orpo.training.config_elsewhere import IGNORED, LATER, REFUSED, changes_nothing
from orpo.training.config_fields import known_names
from orpo.training.config_file import Setting
from orpo.training.config_foreign import NO_FLOAT16, VALUES, refuse, where
from orpo.training.config_values import shown

Translated = tuple[Mapping[str, Setting], tuple[str, ...]]

RENAMED: Mapping[str, str] = {
    "orpo_alpha": "beta",  # Axolotl
    "pref_beta": "beta",  # LLaMA-Factory
    "alpha": "beta",  # the official code
    "lambda": "beta",  # the paper
    "rl": "objective",  # Axolotl
    "pref_loss": "objective",  # LLaMA-Factory
    "rlhf_type": "objective",  # ms-swift
    "sequence_len": "max_length",
    "cutoff_len": "max_length",
    "cutoff": "max_length",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "model_max_length": "max_length",
    "base_model": "model",
    "model_name_or_path": "model",
    "model_name": "model",
    "datasets": "data",
    "dataset": "data",
    "dataset_name": "data",
    "data_name": "data",
    "train_file": "data",
    "eval_dataset": "eval_data",
    "test_datasets": "eval_data",
    "val_dataset": "eval_data",
    "val_set_size": "holdout",
    "val_size": "holdout",
    "split_dataset_ratio": "holdout",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "warmup_ratio": "warmup_steps",
    "global_batch_size": "pairs_per_step",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
    "target_modules": "lora_target_modules",
    "lora_target_linear": "lora_target_modules",
    "peft": "use_peft",
    "use_lora": "use_peft",
    "enable_lora": "use_peft",
    "adapter": "use_peft",
    "finetuning_type": "use_peft",
    "train_type": "use_peft",
    "quantization_bit": "load_in_4bit",
    "bnb_4bit_quant_type": "load_in_4bit",
    "quantization_type": "load_in_4bit",
    "bnb_4bit_use_double_quant": "load_in_4bit",
    "use_bnb_nested_quant": "load_in_4bit",
    "double_quantization": "load_in_4bit",
    "bnb_4bit_compute_dtype": "dtype",
    "torch_dtype": "dtype",
    "bf16": "dtype",
    "fp32": "dtype",
    "chat_template": "template",
    "activation_checkpointing": "gradient_checkpointing",
}
"""Other name -> ours. Where the values differ as well, see config_foreign.py."""

PER_DEVICE = ("micro_batch_size", "per_device_train_batch_size", "train_batch_size", "batch_size")
ACCUMULATION = "gradient_accumulation_steps"


def translated(settings: Sequence[Setting]) -> Translated:
    """Our name -> Setting, and the notes. Raises ConfigError for unknown names, names without counterpart, and names that disagree."""
    known = known_names()
    batch = [setting for setting in settings if setting.name in (*PER_DEVICE, ACCUMULATION)]
    found, notes = _pairs_per_step(batch) if batch else ([], [])
    for setting in settings:
        if setting in batch:
            continue
        if setting.name in known:
            found.append(setting)
        else:
            ours, note = _ours(setting, known)
            found += ours
            notes.append(note)
    merged = _merged(found)
    _require_named_objective(settings, merged)
    return merged, tuple(notes)


def _ours(setting: Setting, known: Iterable[str]) -> tuple[list[Setting], str]:
    """What a foreign setting means here (nothing, or one setting), and the note for it."""
    name, place = setting.name, setting.place
    if RENAMED.get(name) == "use_peft" and setting.value == "qlora":
        both = [Setting(ours, True, place, name) for ours in ("use_peft", "load_in_4bit")]
        return both, f"{place}: {name} qlora is read as use_peft and load_in_4bit"
    if name in RENAMED:
        ours = renamed(setting)
        if ours is None:
            return [], f"{place}: {name} {shown(setting.value)} needs no setting here"
        said = "" if ours.value == setting.value else f" {shown(ours.value)}"
        return [ours], f"{place}: {name} is read as {ours.name}{said}"
    if name == "fp16":
        return [], _fp16(setting)
    if name == "stage":
        return _stage(setting)
    if name in IGNORED:
        return [], f"{place}: {name} is not used: {IGNORED[name]}"
    if name not in REFUSED and name not in LATER:
        raise _unknown(setting, known)
    if changes_nothing(name, setting.value):
        return [], f"{place}: {name} {shown(setting.value)} asks for what happens anyway"
    if name in LATER:
        raise ConfigError(f"{name} is not there yet: {LATER[name]}", where=where(setting), fix=f"remove {name}")
    raise ConfigError(f"{name} has no counterpart here: {REFUSED[name]}", where=where(setting), fix=f"remove {name}")


def renamed(setting: Setting) -> Setting | None:
    """One of RENAMED under our name and with our value; None where it needs no setting here. Raises ConfigError for a value of no use."""
    value = VALUES[setting.name](setting) if setting.name in VALUES else setting.value
    return None if value is None else Setting(RENAMED[setting.name], value, setting.place, setting.name)


def _merged(settings: Iterable[Setting]) -> dict[str, Setting]:
    """Name -> Setting; two places that name one setting must give it one value."""
    merged: dict[str, Setting] = {}
    for setting in settings:
        first = merged.setdefault(setting.name, setting)
        if first is not setting and first.value != setting.value:
            raise ConfigError(
                f"{setting.name} is {shown(first.value)} at {first.origin} and {shown(setting.value)} at {setting.origin}",
                where=where(setting),
                expected="one value; the names mean the same",
                fix="remove one of the two",
            )
    return merged


def _unknown(setting: Setting, known: Iterable[str]) -> ConfigError:
    names = [*known, *RENAMED, *PER_DEVICE, ACCUMULATION, *IGNORED, *REFUSED, *LATER]
    near = difflib.get_close_matches(setting.name, names, n=1)
    meant = f" ({RENAMED[near[0]]} here)" if near and near[0] in RENAMED else ""
    fix = f"did you mean {near[0]}{meant}?" if near else "remove it"
    if setting.name == "objective_options":
        fix = "give its entries by themselves, such as beta"
    return ConfigError(
        f"there is no setting {setting.name!r}",
        where=where(setting),
        expected="a setting of `orpo train`; `orpo train --help` lists them",
        fix=fix,
    )


def _pairs_per_step(batch: list[Setting]) -> tuple[list[Setting], list[str]]:
    """Batch size times accumulation as one setting: a step is so many pairs, however they fit into memory."""
    sizes = [setting for setting in batch if setting.name in PER_DEVICE]
    if not sizes:
        raise ConfigError(
            f"{ACCUMULATION} is given without a batch size",
            where=where(batch[0]),
            expected="the pairs of one optimizer step",
            fix="set pairs_per_step to batch size times accumulation",
        )
    _merged(Setting("batch size", setting.value, setting.place, setting.name) for setting in sizes)
    factors = [sizes[0], *(setting for setting in batch if setting.name == ACCUMULATION)]
    for setting in factors:
        if isinstance(setting.value, bool) or not isinstance(setting.value, int) or setting.value < 1:
            raise ConfigError(
                f"{setting.name} is {shown(setting.value)}",
                where=where(setting),
                expected="a whole number, at least 1",
                fix="set pairs_per_step to the pairs of one optimizer step instead",
            )
    product = prod(setting.value for setting in factors)
    written = " x ".join(setting.name for setting in factors)
    note = (
        f"{sizes[0].place}: {written} is read as pairs_per_step {product}, over all processes; "
        "how many of them are in memory at once is up to tokens_per_micro_batch"
    )
    return [Setting("pairs_per_step", product, sizes[0].place, written)], [note]


def _fp16(setting: Setting) -> str:
    """A note that it is off; raises ConfigError when it is not."""
    if changes_nothing(setting.name, setting.value):
        return f"{setting.place}: fp16 is off, as it always is here"
    raise refuse(setting, NO_FLOAT16, "write dtype: auto, bfloat16 or float32")


def _stage(setting: Setting) -> tuple[list[Setting], str]:
    """LLaMA-Factory's stage: `sft` is the objective; `dpo` holds ORPO as well, and pref_loss says which."""
    if setting.value == "sft":
        return [Setting("objective", "sft", setting.place, "stage")], f"{setting.place}: stage is read as objective sft"
    if setting.value == "dpo":
        return [], f"{setting.place}: stage dpo is not used: the objective says what is trained"
    raise refuse(setting, "sft or dpo", "write objective: orpo, or objective: sft")


def _require_named_objective(settings: Iterable[Setting], merged: Mapping[str, Setting]) -> None:
    """Raises ConfigError for `stage: dpo` alone: it would mean DPO there, and must not train ORPO in silence."""
    for setting in settings:
        if setting.name == "stage" and setting.value == "dpo" and "objective" not in merged:
            raise refuse(setting, "pref_loss or objective beside it", "write objective: orpo if ORPO is meant")

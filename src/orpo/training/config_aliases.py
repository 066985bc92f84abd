"""Names of other tools enter, our names leave, with a note for each. Two names for one setting must agree."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

from orpo.errors import ConfigError
from orpo.training.config_elsewhere import IGNORED, LATER, REFUSED, changes_nothing
from orpo.training.config_fields import known_names
from orpo.training.config_file import Setting
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
    "torch_dtype": "dtype",
    "bf16": "dtype",
    "fp32": "dtype",
    "chat_template": "template",
    "activation_checkpointing": "gradient_checkpointing",
}
"""Other name -> ours. Where the values differ as well, see _VALUES."""

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
        raise ConfigError(f"{name} is not there yet: {LATER[name]}", where=_where(setting), fix=f"remove {name}")
    raise ConfigError(f"{name} has no counterpart here: {REFUSED[name]}", where=_where(setting), fix=f"remove {name}")


def renamed(setting: Setting) -> Setting | None:
    """One of RENAMED under our name and with our value; None where it needs no setting here. Raises ConfigError for a value of no use."""
    value = _VALUES[setting.name](setting) if setting.name in _VALUES else setting.value
    return None if value is None else Setting(RENAMED[setting.name], value, setting.place, setting.name)


def _merged(settings: Iterable[Setting]) -> dict[str, Setting]:
    """Name -> Setting; two places that name one setting must give it one value."""
    merged: dict[str, Setting] = {}
    for setting in settings:
        first = merged.setdefault(setting.name, setting)
        if first is not setting and first.value != setting.value:
            raise ConfigError(
                f"{setting.name} is {shown(first.value)} at {first.origin} and {shown(setting.value)} at {setting.origin}",
                where=_where(setting),
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
        where=_where(setting),
        expected="a setting of `orpo train`; `orpo train --help` lists them",
        fix=fix,
    )


def _where(setting: Setting) -> str:
    """The place as an error begins with it."""
    return setting.place.removeprefix("flag ")


def _pairs_per_step(batch: list[Setting]) -> tuple[list[Setting], list[str]]:
    """Batch size times accumulation as one setting: a step is so many pairs, however they fit into memory."""
    sizes = [setting for setting in batch if setting.name in PER_DEVICE]
    if not sizes:
        raise ConfigError(
            f"{ACCUMULATION} is given without a batch size",
            where=_where(batch[0]),
            expected="the pairs of one optimizer step",
            fix="set pairs_per_step to batch size times accumulation",
        )
    _merged(Setting("batch size", setting.value, setting.place, setting.name) for setting in sizes)
    factors = [sizes[0], *(setting for setting in batch if setting.name == ACCUMULATION)]
    for setting in factors:
        if isinstance(setting.value, bool) or not isinstance(setting.value, int) or setting.value < 1:
            raise ConfigError(
                f"{setting.name} is {shown(setting.value)}",
                where=_where(setting),
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


def _refuse(setting: Setting, expected: str, fix: str) -> ConfigError:
    return ConfigError(f"{setting.name} is {shown(setting.value)}", where=_where(setting), expected=expected, fix=fix)


def _adapter(setting: Setting) -> bool | None:
    kinds: Mapping[object, bool | None] = {True: True, False: False, "lora": True, "full": False, "none": False, "": None}
    if isinstance(setting.value, bool | str) and setting.value in kinds:
        return kinds[setting.value]
    if setting.value == "qlora":
        raise _refuse(setting, LATER["load_in_4bit"], "write use_peft: true")
    raise _refuse(setting, "lora, or full", "write use_peft: true for LoRA; leave it out to train all weights")


def _dtype(setting: Setting) -> object:
    if setting.value in ("float16", "half", "fp16"):
        raise _refuse(setting, _FP16, "write dtype: auto, bfloat16 or float32")
    return {"bf16": "bfloat16", "fp32": "float32", "float": "float32"}.get(str(setting.value), setting.value)


def _bf16(setting: Setting) -> str:
    named: Mapping[object, str] = {True: "bfloat16", False: "float32", "auto": "auto", "full": "bfloat16"}
    if not isinstance(setting.value, bool | str) or setting.value not in named:
        raise _refuse(setting, "true, false or auto", "write dtype: auto, bfloat16 or float32")
    return named[setting.value]


def _fp32(setting: Setting) -> str | None:
    if not isinstance(setting.value, bool):
        raise _refuse(setting, "true or false", "write dtype: auto, bfloat16 or float32")
    return "float32" if setting.value else None


_FP16 = "no float16: its small range needs loss scaling, which skips steps; bfloat16 has the range of float32"


def _fp16(setting: Setting) -> str:
    """A note that it is off; raises ConfigError when it is not."""
    if changes_nothing(setting.name, setting.value):
        return f"{setting.place}: fp16 is off, as it always is here"
    raise _refuse(setting, _FP16, "write dtype: auto, bfloat16 or float32")


def _warmup_ratio(setting: Setting) -> object:
    if isinstance(setting.value, bool) or not isinstance(setting.value, int | float) or not 0 <= setting.value < 1:
        raise _refuse(
            setting, "a fraction of the steps, at least 0 and below 1", "write warmup_steps: 0.1 for a tenth, or a number of steps"
        )
    return setting.value


def _target(setting: Setting) -> object:
    return "all-linear" if setting.value in ("all", "all-linear") else setting.value


def _target_linear(setting: Setting) -> str | None:
    if not isinstance(setting.value, bool):
        raise _refuse(setting, "true or false", "write lora_target_modules: all-linear, or names of layers")
    return "all-linear" if setting.value else None


def _chat_template(setting: Setting) -> object:
    return {"tokenizer_default": "tokenizer", "default": "auto"}.get(str(setting.value), setting.value)


def _stage(setting: Setting) -> tuple[list[Setting], str]:
    """LLaMA-Factory's stage: `sft` is the objective; `dpo` holds ORPO as well, and pref_loss says which."""
    if setting.value == "sft":
        return [Setting("objective", "sft", setting.place, "stage")], f"{setting.place}: stage is read as objective sft"
    if setting.value == "dpo":
        return [], f"{setting.place}: stage dpo is not used: the objective says what is trained"
    raise _refuse(setting, "sft or dpo", "write objective: orpo, or objective: sft")


def _require_named_objective(settings: Iterable[Setting], merged: Mapping[str, Setting]) -> None:
    """Raises ConfigError for `stage: dpo` alone: it would mean DPO there, and must not train ORPO in silence."""
    for setting in settings:
        if setting.name == "stage" and setting.value == "dpo" and "objective" not in merged:
            raise _refuse(setting, "pref_loss or objective beside it", "write objective: orpo if ORPO is meant")


_VALUES: Mapping[str, Callable[[Setting], object]] = {
    "adapter": _adapter,
    "finetuning_type": _adapter,
    "train_type": _adapter,
    "peft": _adapter,
    "torch_dtype": _dtype,
    "bf16": _bf16,
    "fp32": _fp32,
    "warmup_ratio": _warmup_ratio,
    "lora_target": _target,
    "target_modules": _target,
    "lora_target_linear": _target_linear,
    "chat_template": _chat_template,
}

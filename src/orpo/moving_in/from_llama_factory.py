"""LLaMA-Factory: a YAML or JSON file of `llamafactory-cli train`, and the dataset_info.json that its datasets are named in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orpo.errors import ConfigError
from orpo.moving_in.data_sources import Located, became, located
from orpo.moving_in.tool import (
    TOLD_ELSEWHERE,
    Became,
    Rule,
    Tool,
    UnfitSetting,
    Values,
    all_told_elsewhere,
    for_reasons,
    not_needed,
    not_supported,
    read_as,
)
from orpo.moving_in.transformers_rules import TRAINING_ARGUMENTS, trackers, whole
from orpo.training.config_values import Unfit

INFO = "dataset_info.json"

ORPO_LOSS = (
    "LLaMA-Factory's likelihood is that of the answer alone, averaged over answers, as in the paper; preset llama-factory computes that, "
    "and is finite where a log-prob of 0 makes LLaMA-Factory's odds infinite"
)
CUT = (
    "LLaMA-Factory cuts prompt and answer in proportion; here the answer is cut, a row without room for one is dropped, "
    "and both are counted"
)
OBJECTIVE_OF = {"sigmoid": "dpo", "orpo": "orpo", "simpo": "simpo", "ipo": "ipo"}
STAGE_OF = {"kto": "kto", "sft": "sft", "rm": "reward"}


def defaults(given: Values) -> Values:
    """What LLaMA-Factory does unsaid, where that is not what happens here."""
    said: dict[str, Any] = {
        "stage": "sft",
        "finetuning_type": "lora",
        "cutoff_len": 2048,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 3.0,
        "learning_rate": 5e-5,
        "save_strategy": "steps",
        "seed": 42,
    }
    if given.get("finetuning_type", "lora") == "lora":
        rank = given.get("lora_rank", 8)
        said |= {"lora_rank": 8, "lora_alpha": 2 * rank if isinstance(rank, int) else rank}
    return said


def stage(value: Any, values: Values) -> Became:
    """The objective of a stage; `dpo` holds five losses, and pref_loss says which. Raises Unfit where there is no counterpart."""
    if value in STAGE_OF:
        demonstrations = "sft learns the chosen answers of preference pairs; demonstrations without a rejected answer are not read"
        why = demonstrations if value == "sft" else ""
        return Became("changed" if why else "carried", {"objective": STAGE_OF[value]}, why)
    kind = values.get("pref_loss", "sigmoid")
    if value != "dpo" or kind not in OBJECTIVE_OF:
        wrong = "pref_loss" if value == "dpo" else "stage"
        raise UnfitSetting(wrong, f"stage dpo with pref_loss {', '.join(OBJECTIVE_OF)}; or stage {', '.join(STAGE_OF)}")
    objective, written = OBJECTIVE_OF[kind], f"stage dpo, pref_loss {kind}"
    if objective == "orpo":
        return Became("changed", {"objective": "orpo", "preset": "llama-factory"}, ORPO_LOSS, written)
    settings = {"objective": objective} | ({"logps": "mean"} if objective == "ipo" else {}) | _simpo(values, objective)
    return Became("carried", settings, written=written)


def _simpo(values: Values, objective: str) -> dict[str, Any]:
    """SimPO's own defaults are not those of LLaMA-Factory."""
    return {"beta": values.get("pref_beta", 0.1), "gamma": values.get("simpo_gamma", 0.5)} if objective == "simpo" else {}


def pref_beta(value: Any, values: Values) -> Became:
    """beta, which IPO calls tau here."""
    kind = values.get("pref_loss", "sigmoid") if values.get("stage") == "dpo" else values.get("stage")
    if kind in ("sft", "rm"):
        return Became("unneeded", why=f"{kind} has no such weight")
    return TOLD_ELSEWHERE if kind == "simpo" else Became("carried", {"tau" if kind == "ipo" else "beta": value})


def how_much(value: Any, _: Values) -> Became:
    """finetuning_type. Which weights are trained is never guessed: freeze and oft raise Unfit."""
    if value not in ("lora", "full"):
        raise Unfit("lora, or full", "write finetuning_type: lora (adapters) or full (all weights) there")
    return Became("carried", {"use_peft": value == "lora"})


def lora_target(value: Any, _: Values) -> Became:
    """all, or names separated by commas."""
    return Became("carried", {"lora_target_modules": "all-linear" if value in ("all", ["all"]) else value})


def cutoff(value: Any, _: Values) -> Became:
    """cutoff_len, with what happens to longer rows."""
    return Became("changed", {"max_length": whole("cutoff_len", value), "overlong": "cut-completion"}, CUT)


def template(value: Any, _: Values) -> Became:
    """ChatML is here by name; for all others the tokenizer's own template stands."""
    if value in (None, "chatml"):
        return TOLD_ELSEWHERE if value is None else Became("carried", {"template": "chatml"})
    why = f"the tokenizer's own chat template is used, not LLaMA-Factory's {value}; look at a row: orpo check DATA --model MODEL --show 1"
    return Became("changed", why=why)


def datasets(ours: str) -> Rule:
    """The rule of dataset and eval_dataset: names that dataset_info.json explains."""

    def rule(value: Any, values: Values) -> Became:
        if value is None:
            return TOLD_ELSEWHERE
        names = [str(name).strip() for name in (value.split(",") if isinstance(value, str) else value)]
        folder = values.get("dataset_dir", "data")
        info, where = read_info(str(folder), values.get("file_folder"))
        if info is None:
            left = f"there is no {INFO} in {where}, so the names stand as they are: set {ours} to files or Hub ids"
            return became([Located(tuple(names), left=(left,))], ours=ours)
        return became([_described(name, info, where) for name in names], ours=ours, why=f"named in {where / INFO}")

    return rule


def read_info(dataset_dir: str, file_folder: Any) -> tuple[Mapping[str, Any] | None, Path]:
    """What dataset_info.json holds, and its folder: dataset_dir from here, or from the configuration's own folder."""
    folders = [Path(dataset_dir), *([Path(file_folder) / dataset_dir, Path(file_folder)] if file_folder else [])]
    for folder in folders:
        if (folder / INFO).is_file():
            try:
                info = json.loads((folder / INFO).read_text(encoding="utf-8"))
            except (ValueError, OSError) as error:
                raise ConfigError(
                    f"it cannot be read: {error}", where=str(folder / INFO), fix="correct it, or set data yourself"
                ) from error
            return (info if isinstance(info, dict) else {}), folder
    return None, folders[0]


def _described(name: str, info: Mapping[str, Any], folder: Path) -> Located:
    entry = info.get(name)
    if not isinstance(entry, Mapping):
        return Located((name,), left=(f"{name} is not in {folder / INFO}: set data",))
    columns = _columns(entry)
    split, subset = entry.get("split"), entry.get("subset")
    if entry.get("hf_hub_url"):
        found = located(str(entry["hf_hub_url"]), name=subset, split=split)
    elif entry.get("file_name"):
        found = Located((str(folder / str(entry["file_name"])),))
    else:
        found = Located((name,), left=(f"{name} lies neither in a file nor on the Hugging Face Hub: fetch it and set data",))
    left = [*found.left, *_unread(name, entry)]
    return Located(found.data, columns, tuple(left))


ROLES = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    **{role: role for role in ("history", "system", "tools", "chosen", "rejected", "kto_tag")},
}
"""LLaMA-Factory's name of a column -> the role that orpo gives it: a prompt is a turn there, never plain text."""


def _columns(entry: Mapping[str, Any]) -> dict[str, str]:
    """Role -> column, where a column has not its role's name."""
    named = entry.get("columns") or {}
    if entry.get("formatting") == "sharegpt":
        roles = {**ROLES, "messages": "messages" if (entry.get("tags") or {}).get("role_tag") == "role" else "conversations"}
    else:
        roles = ROLES
    found = {roles[key]: str(column) for key, column in named.items() if key in roles and column}
    return {role: column for role, column in found.items() if role != column}


TAGS = {
    "role_tag": ("from", "role"),
    "content_tag": ("value", "content"),
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
}


def _unread(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Sentences on what of a dataset's description has no counterpart."""
    tags = entry.get("tags") or {}
    odd = [f"{tag}: {value}" for tag, value in tags.items() if tag in TAGS and value not in TAGS[tag]]
    left = [f"{name}: messages are read by the names from/value and role/content ({', '.join(odd)}): rename them"] if odd else []
    if entry.get("num_samples"):
        left.append(f"{name}: num_samples; all rows are read")
    if any(key in (entry.get("columns") or {}) for key in ("images", "videos", "audios")):
        left.append(f"{name}: images, sound and video; only text is trained on")
    return left


# fmt: off
NOT_NEEDED: Mapping[str, tuple[str, ...]] = {
    "of a conversation only the last answer is trained": ("mask_history",),
    "activations are recomputed where memory asks for it; the result is the same": ("disable_gradient_checkpointing",),
    "the chat template says how tools are written": ("tool_format",),
    "4-bit weights are NF4 with quantised scales here": ("quantization_method", "quantization_type", "double_quantization"),
    "the tokenizer's own config says what it is": ("split_special_tokens",),
    "the engine does without": ("use_unsloth_gc", "use_reentrant_gc", "upcast_layernorm", "use_v1_kernels"),
    "it is always measured": ("include_effective_tokens_per_second", "compute_accuracy", "print_param_status"),
    "rows are read and checked in one pass here": ("buffer_size", "preprocessing_batch_size", "tokenized_path"),
    "only text is trained on": (
        "image_max_pixels", "image_min_pixels", "video_max_pixels", "video_min_pixels", "media_dir", "freeze_vision_tower",
        "freeze_multi_modal_projector", "freeze_language_model",
    ),
}

NOT_SUPPORTED: Mapping[str, tuple[str, ...]] = {
    "adapters are plain LoRA (use_peft, lora_r, lora_alpha, lora_dropout, lora_target_modules)": (
        "loraplus_lr_ratio", "create_new_adapter", "use_llama_pro", "shift_attn", "mixture_of_depths",
    ),
    "adamw_torch_fused takes its place": ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon"),
    "all rows are read: make a smaller file, or use max_steps": ("max_samples",),
    "a model's positions are those of its config: save it with the scaling you want": ("rope_scaling",),
    "merge the adapter into its base first, and name the merged folder as model": ("adapter_name_or_path",),
    "nothing runs under Ray": ("ray_run_name", "ray_storage_path", "ray_num_workers", "resources_per_worker"),
    "the loss is the published one": ("pref_bco_weight",),
    "the order of pairs is drawn anew in each epoch, from seed": ("disable_shuffling",),
    "the reference is the model as it was before training": ("ref_model_adapters",),
}

MARKS: tuple[str, ...] = (
    "stage", "pref_loss", "finetuning_type", "cutoff_len", "template", "pref_beta", "lora_rank", "lora_target", "dataset_dir", "val_size",
    "pref_ftx", "overwrite_cache", "preprocessing_num_workers", "plot_loss", "quantization_bit", "flash_attn", "neat_packing",
    "adapter_name_or_path", "use_swanlab", "max_samples", "simpo_gamma", "kto_chosen_weight", "use_unsloth", "enable_liger_kernel",
    "additional_target", "dpo_label_smoothing", "image_max_pixels",
)
# fmt: on

RULES: Mapping[str, Rule] = {
    **TRAINING_ARGUMENTS,
    "stage": stage,
    "pref_beta": pref_beta,
    "dpo_label_smoothing": read_as("label_smoothing"),
    "kto_chosen_weight": read_as("desirable_weight"),
    "kto_rejected_weight": read_as("undesirable_weight"),
    "finetuning_type": how_much,
    "lora_target": lora_target,
    "cutoff_len": cutoff,
    "template": template,
    "dataset": datasets("data"),
    "eval_dataset": datasets("eval_data"),
    "train_on_prompt": lambda value, _: Became("carried", {"nll_over": "prompt+completion"}) if value else TOLD_ELSEWHERE,
    "use_swanlab": lambda value, values: trackers("swanlab" if value else "none", values),
    **for_reasons(not_needed, NOT_NEEDED),
    **for_reasons(not_supported, NOT_SUPPORTED),
    **all_told_elsewhere("pref_loss", "simpo_gamma", "dataset_dir"),
}

LLAMA_FACTORY = Tool("LLaMA-Factory", "llama-factory", MARKS, defaults, RULES)

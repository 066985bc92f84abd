"""TRL: what its scripts read from a YAML file, or ORPOConfig.to_dict() from a JSON file. Known against TRL 1.16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orpo.moving_in.data_sources import Located, became, from_entry, located
from orpo.moving_in.tool import (
    ANYWAY,
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
from orpo.moving_in.transformers_rules import TRAINING_ARGUMENTS, whole
from orpo.objectives.catalogue import OBJECTIVES
from orpo.training.config_elsewhere import REFUSED
from orpo.training.config_values import Unfit

TRAINERS = ("orpo", "dpo", "kto", "sft", "cpo")

ORPO_LOSS = (
    "TRL takes the prompt into the likelihood and averages over tokens; preset trl computes that. It divides by the tokens of each "
    "micro-batch, here by those of the step: equal where a step is one micro-batch"
)
CUT = (
    "TRL cuts the answers of a longer row, sometimes to nothing; here they are cut as far, a row without room for an answer is dropped, "
    "and both are counted"
)
WEIGHTS = "trained weights are float32, frozen ones have the dtype of the products"
HARMLESS_KWARGS = ("dtype", "torch_dtype", "attn_implementation", "device_map", "low_cpu_mem_usage", "use_cache", "use_kernels")


def defaults(given: Values) -> Values:
    """What TRL does unsaid, where that is not what happens here."""
    trainer = given.get("trainer") or guessed_trainer(given)
    said: dict[str, Any] = {
        "trainer": trainer,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 3.0,
        "learning_rate": 2e-5 if trainer == "sft" else 1e-6,
        "max_length": 1024,
        "logging_steps": 10,
        "save_strategy": "steps",
        "seed": 42,
    }
    if given.get("use_peft"):
        said |= {"lora_dropout": 0.05, "lora_target_modules": None}
    return said


def guessed_trainer(given: Values) -> str:
    """Which of TRL's trainers the settings belong to; ORPO's where none says otherwise."""
    loss = str(given.get("loss_type", ""))
    if "desirable_weight" in given or loss in ("kto", "apo_zero_unpaired"):
        return "kto"
    if {"cpo_alpha", "simpo_gamma"} & given.keys() or loss == "simpo":
        return "cpo"
    if {"completion_only_loss", "assistant_only_loss", "dataset_text_field", "packing"} & given.keys() or loss in ("nll", "dft"):
        return "sft"
    return "dpo" if {"loss_type", "precompute_ref_log_probs", "f_divergence_type", "sync_ref_model", "ld_alpha"} & given.keys() else "orpo"


def loss(trainer: Any, values: Values) -> Became:
    """The objective of a trainer, and what makes its loss the same. Raises Unfit for a loss that has no counterpart."""
    if trainer == "orpo":
        return Became("changed", {"objective": "orpo", "preset": "trl"}, ORPO_LOSS, "ORPOTrainer")
    if trainer in ("dpo", "cpo"):
        return _pairwise(str(trainer), values)
    if trainer == "kto":
        if values.get("loss_type", "kto") != "kto":
            raise UnfitSetting("loss_type", "kto, of a KTOTrainer")
        why = "z0 comes from answers moved on within the whole step; TRL moves them on within each micro-batch"
        return Became("changed", {"objective": "kto"}, why, "KTOTrainer")
    if trainer == "sft":
        why = "sft learns the chosen answers of preference pairs; demonstrations without a rejected answer are not read"
        return Became("changed", {"objective": "sft"}, why, "SFTTrainer")
    raise Unfit(f"one of {', '.join(TRAINERS)}")


def _pairwise(trainer: str, values: Values) -> Became:
    """DPOTrainer's two losses that are here, and CPOTrainer's SimPO."""
    given = values.get("loss_type", "sigmoid")
    kinds = [given] if isinstance(given, str) else list(given)
    if trainer == "cpo":
        if kinds != ["simpo"] or values.get("cpo_alpha", 1.0):
            raise UnfitSetting("loss_type", "simpo with cpo_alpha 0, of a CPOTrainer")
        return Became("carried", {"objective": "simpo"}, written="CPOTrainer, loss_type simpo")
    if kinds == ["sigmoid"]:
        return Became("carried", {"objective": "dpo"}, written="DPOTrainer")
    if kinds == ["ipo"]:
        return Became(
            "changed", {"objective": "ipo", "logps": "mean"}, "TRL's IPO averages log-probs over tokens", "DPOTrainer, loss_type ipo"
        )
    raise UnfitSetting("loss_type", f"sigmoid or ipo, of a DPOTrainer (objectives here: {', '.join(OBJECTIVES)})")


def beta(value: Any, values: Values) -> Became:
    """The weight of the odds ratio, or the strength of the pull to the reference: IPO's is tau here."""
    if values["trainer"] == "sft":
        return Became("unneeded", why="sft has no such weight")
    is_ipo = values.get("loss_type") in ("ipo", ["ipo"])
    return Became("carried", {"tau" if is_ipo and values["trainer"] == "dpo" else "beta": value})


def max_length(value: Any, _: Values) -> Became:
    """Rows beyond it have their answers cut, as TRL cuts them. Unset is 512 there."""
    return Became("changed", {"max_length": 512 if value is None else whole("max_length", value), "overlong": "cut-completion"}, CUT)


def dataset(value: Any, values: Values) -> Became:
    """dataset_name with its configuration and split."""
    if value is None:
        return TOLD_ELSEWHERE
    found = located(str(value), name=values.get("dataset_config"), split=values.get("dataset_train_split"))
    return became([found], written="dataset_name")


def test_split(value: Any, values: Values) -> Became:
    """The split that is evaluated, where the run is evaluated and its data have splits."""
    name = values.get("dataset_name")
    if name is None or str(values.get("eval_strategy", "no")) in ("no", "False"):
        return Became("unneeded", why="nothing is evaluated there: eval_strategy is no")
    return became([located(str(name), name=values.get("dataset_config"), split=str(value))], ours="eval_data")


def mixture(value: Any, _: Values) -> Became:
    """A list of datasets."""
    if not value:
        return TOLD_ELSEWHERE
    entries = value if isinstance(value, list) else [value]
    return became([_whole(entry) for entry in entries])


def _whole(entry: Any) -> Located:
    """A dataset of which no fraction is taken."""
    found = from_entry(entry)
    is_part = isinstance(entry, Mapping) and entry.get("fraction")
    return replace(found, left=(*found.left, "fraction: all rows of every dataset are read")) if is_part else found


def model_init(value: Any, _: Values) -> Became:
    """What TRL hands to from_pretrained."""
    if not value:
        return TOLD_ELSEWHERE
    if not isinstance(value, Mapping):
        raise Unfit("settings by name")
    off = [name for name, kwarg in value.items() if kwarg is None or (name, kwarg) in (("revision", "main"), ("trust_remote_code", False))]
    left = [str(name) for name in value if name not in HARMLESS_KWARGS and name not in off]
    if left:
        return Became(
            "unsupported", why=f"{', '.join(left)}: a model is loaded from its folder or Hub id as it is, never with code of its own"
        )
    return Became("unneeded", why=f"{WEIGHTS}; the engine chooses attention and placement")


def token(value: Any, _: Values) -> Became:
    """hub_token, which to_dict() masks."""
    return TOLD_ELSEWHERE if value in (None, "<HUB_TOKEN>") else Became("unsupported", why=REFUSED["hub_token"])


def lora_targets(value: Any, values: Values) -> Became:
    """Unset, PEFT chooses by the architecture: for most it is the query and value projections."""
    if value is not None:
        return Became("carried", {"lora_target_modules": "all-linear" if value in ("all-linear", ["all-linear"]) else value})
    if not values.get("use_peft"):
        return TOLD_ELSEWHERE
    why = (
        "PEFT chose for TRL, of most models q_proj and v_proj; here all linear layers unless lora_target_modules: [q_proj, v_proj] says so"
    )
    return Became("changed", why=why)


def truncation(value: Any, _: Values) -> Became:
    """Which end of a long row is cut."""
    return (
        Became("unneeded", why=ANYWAY) if value in (None, "keep_start") else Became("unsupported", why="a long row is cut at its end alone")
    )


def reference(value: Any, _: Values) -> Became:
    """precompute_ref_log_probs."""
    return Became("carried", {"reference": "precomputed"}) if value else Became("unneeded", why=ANYWAY)


def whole_rows(value: Any, _: Values) -> Became:
    """completion_only_loss: false has the prompt trained too."""
    return (
        Became("unneeded", why="the answer alone is trained")
        if value in (None, True)
        else Became("carried", {"nll_over": "prompt+completion"})
    )


# fmt: off
NOT_NEEDED: Mapping[str, tuple[str, ...]] = {
    WEIGHTS: ("dtype", "torch_dtype"),
    "the answer alone is trained": ("assistant_only_loss",),
    "4-bit weights are NF4 with quantised scales here": ("bnb_4bit_quant_type", "bnb_4bit_quant_storage", "use_bnb_nested_quant"),
    "which columns hold what is told from the rows (orpo check)": ("dataset_text_field", "dataset_kwargs"),
    "the order of pairs is drawn anew in each epoch, from seed": ("data_seed", "shuffle_dataset"),
    "a run takes the GPU that is there; an empty CUDA_VISIBLE_DEVICES hides it": ("use_cpu",),
    "rows are read and checked in one pass here": ("dataset_streaming",),
    "nothing is padded": ("label_pad_token_id",),
}

NOT_SUPPORTED: Mapping[str, tuple[str, ...]] = {
    "TRL's robust loss is another one than cDPO, which label_smoothing means here": ("label_smoothing",),
    "the tokenizer's own end-of-sequence token ends an answer, or the template's": ("eos_token",),
}

MARKS: tuple[str, ...] = (
    "dataset_name", "use_peft", "max_prompt_length", "max_completion_length", "dataset_train_split", "dataset_test_split",
    "dataset_config", "dataset_streaming", "dataset_num_proc", "model_init_kwargs", "disable_dropout", "generate_during_eval",
    "is_encoder_decoder", "padding_value", "label_pad_token_id", "loss_type", "desirable_weight", "undesirable_weight",
    "completion_only_loss", "assistant_only_loss", "max_seq_length", "test_split_size", "f_divergence_type", "precompute_ref_batch_size",
    "lora_task_type",
)
# fmt: on

RULES: Mapping[str, Rule] = {
    **TRAINING_ARGUMENTS,
    "trainer": loss,
    "hub_token": token,
    "beta": beta,
    "loss_type": lambda *_: TOLD_ELSEWHERE,
    "simpo_gamma": read_as("gamma"),
    "cpo_alpha": lambda *_: TOLD_ELSEWHERE,
    "max_length": max_length,
    "max_seq_length": max_length,
    "truncation_mode": truncation,
    "precompute_ref_log_probs": reference,
    "completion_only_loss": whole_rows,
    "dataset_name": dataset,
    "dataset_test_split": test_split,
    "datasets": mixture,
    "test_split_size": read_as("holdout"),
    "model_init_kwargs": model_init,
    "lora_target_modules": lora_targets,
    "chat_template_path": read_as("template"),
    **for_reasons(not_needed, NOT_NEEDED),
    **for_reasons(not_supported, NOT_SUPPORTED),
    **all_told_elsewhere("dataset_config", "dataset_train_split"),
}

TRL = Tool("TRL", "trl", MARKS, defaults, RULES)

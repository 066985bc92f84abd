"""Axolotl: a YAML file of `axolotl train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orpo.data.columns import ROLES
from orpo.moving_in.axolotl_names import MARKS, NOT_NEEDED, NOT_SUPPORTED
from orpo.moving_in.data_sources import Located, became, from_entry
from orpo.moving_in.tool import (
    ANYWAY,
    TOLD_ELSEWHERE,
    Became,
    Rule,
    Tool,
    Values,
    all_told_elsewhere,
    for_reasons,
    not_needed,
    not_supported,
    read_as,
)
from orpo.moving_in.transformers_rules import (
    AT_END,
    AT_ENDS,
    EPOCHS,
    RECOMPUTED,
    batch,
    checkpoints_kept,
    half_precision,
    interval,
    length,
    logging_interval,
    optimizer,
    precision,
    resuming,
    run_folder,
    scheduler,
    trackers,
    warmup,
    whole,
)
from orpo.training.config_values import Unfit

ORPO_LOSS = (
    "Axolotl trains with TRL's loss: the prompt in the likelihood too, averaged over tokens; preset trl computes that. It divides by the "
    "tokens of each micro-batch, here by those of the step: equal where a step is one micro-batch"
)
OBJECTIVE_OF = {"orpo": "orpo", "dpo": "dpo", "ipo": "ipo", "kto": "kto", "simpo": "simpo"}


def defaults(given: Values) -> Values:
    """What Axolotl does unsaid, where that is not what happens here."""
    said: dict[str, Any] = {
        "micro_batch_size": 1,
        "lr_scheduler": "cosine",
        "sequence_len": 512,
        "num_epochs": 1.0,
        "seed": 42,
        "save_total_limit": 4,
    }
    if not given.get("rl"):
        said |= {"rl": "reward" if given.get("reward_model") else "sft"}
    if not given.get("warmup_steps") and not given.get("warmup_ratio"):
        said |= {"warmup_ratio": 0.03}
    return said


def method(value: Any, values: Values) -> Became:
    """The objective of rl; without rl it is SFT, or a reward model. Raises Unfit where there is no counterpart."""
    if not value:
        return TOLD_ELSEWHERE
    if value == "orpo":
        return Became("changed", {"objective": "orpo", "preset": "trl"}, ORPO_LOSS)
    if value == "sft":
        why = "sft learns the chosen answers of preference pairs; demonstrations without a rejected answer are not read"
        return Became("changed", {"objective": "sft"}, why, "no rl")
    if value == "reward":
        return Became("carried", {"objective": "reward"}, written="reward_model")
    kinds = values.get("dpo_loss_type") or []
    if value not in OBJECTIVE_OF or (value == "dpo" and kinds not in ([], ["sigmoid"], ["ipo"])):
        raise Unfit(f"rl: {', '.join(OBJECTIVE_OF)} (dpo_loss_type sigmoid or ipo)")
    if value == "ipo" or kinds == ["ipo"]:
        return Became("changed", {"objective": "ipo", "logps": "mean"}, "TRL's IPO averages log-probs over tokens")
    return Became("carried", {"objective": OBJECTIVE_OF[value]})


def beta(value: Any, values: Values) -> Became:
    """rl_beta, which goes before orpo_alpha; IPO's is tau here."""
    if value is None:
        return TOLD_ELSEWHERE
    is_ipo = values.get("rl") == "ipo" or values.get("dpo_loss_type") == ["ipo"]
    return Became("carried", {"tau" if is_ipo else "beta": value})


def alpha(value: Any, values: Values) -> Became:
    """orpo_alpha, the weight of the odds ratio."""
    is_beta = values.get("rl") == "orpo" and values.get("rl_beta") is None and value is not None
    return Became("carried", {"beta": value}) if is_beta else TOLD_ELSEWHERE


def trl_section(value: Any, values: Values) -> Became:
    """The section `trl`, of which beta alone belongs to these objectives."""
    return beta((value or {}).get("beta"), values) if isinstance(value, Mapping) or not value else TOLD_ELSEWHERE


def train_on_inputs(value: Any, values: Values) -> Became:
    """Whether SFT learns the prompt; the loss of ORPO does in any case there."""
    if values.get("rl") == "orpo":
        why = "preset trl has the prompt in the likelihood, whatever this says; nll_over: completion takes it out"
        return Became("unneeded", why=why)
    return Became("carried", {"nll_over": "prompt+completion"}) if value and values.get("rl") == "sft" else Became("unneeded", why=ANYWAY)


def adapter(value: Any, _: Values) -> Became:
    """lora and qlora; load_in_4bit says whether the base is quantised. Another raises Unfit: what is trained is never guessed."""
    if not value:
        return Became("carried", {"use_peft": False})
    if value not in ("lora", "qlora"):
        raise Unfit("lora, qlora, or nothing for all weights")
    return Became("carried", {"use_peft": True})


def target_linear(value: Any, _: Values) -> Became:
    """All linear layers; beside a list of names, they are all of them as well."""
    return Became("carried", {"lora_target_modules": "all-linear"}) if value else TOLD_ELSEWHERE


def target_modules(value: Any, values: Values) -> Became:
    """Names of layers, where not all linear ones are asked for."""
    if not value or values.get("lora_target_linear"):
        return TOLD_ELSEWHERE
    return Became("carried", {"lora_target_modules": value})


def sequence_len(value: Any, _: Values) -> Became:
    """Axolotl drops longer rows, as happens here."""
    return Became("carried", {"max_length": whole("sequence_len", value)})


def overlong(value: Any, _: Values) -> Became:
    """excess_length_strategy."""
    kinds = {None: None, "drop": "drop", "truncate": "cut-completion", "raise": "error"}
    if value not in kinds:
        raise Unfit("drop, truncate or raise")
    return TOLD_ELSEWHERE if value is None else Became("carried", {"overlong": kinds[value]})


def chat_template(value: Any, values: Values) -> Became:
    """ChatML and the tokenizer's own are here by name, and a .jinja file is read."""
    source = values.get("chat_template_jinja")
    if source:
        is_file = Path(str(source)).suffix in (".jinja", ".jinja2", ".j2")
        inline = Became(
            "unsupported", why="a template as text: write it to a file and set template: FILE.jinja", written="chat_template_jinja"
        )
        return Became("carried", {"template": source}, written="chat_template_jinja") if is_file else inline
    if value in (None, "chatml", "tokenizer_default"):
        return TOLD_ELSEWHERE if value is None else Became("carried", {"template": "chatml" if value == "chatml" else "tokenizer"})
    why = f"the tokenizer's own chat template is used, not Axolotl's {value}; look at a row: orpo check DATA --model MODEL --show 1"
    return Became("changed", why=why)


def entries(ours: str) -> Rule:
    """The rule of datasets and test_datasets."""

    def rule(value: Any, _: Values) -> Became:
        if not value:
            return TOLD_ELSEWHERE
        return became([_entry(entry) for entry in (value if isinstance(value, list) else [value])], ours=ours)

    return rule


NAMED_FIELDS = {"field_prompt": "prompt", "field_chosen": "chosen", "field_rejected": "rejected", "field_system": "system"}
NAMED_FIELDS |= {"field_completion": "completion", "field_label": "label", "field_messages": "messages", "field_tools": "tools"}
FORMATS = ("prompt_format", "chosen_format", "rejected_format", "completion_format", "chat_template", "chat_template_jinja", "roles")
PLAIN_FORMATS = ("{prompt}", "{chosen}", "{rejected}", "{completion}")


def _entry(entry: Any) -> Located:
    """One dataset: where it lies, which columns have other names, and what its type says that the rows do not."""
    found = from_entry(entry)
    if not isinstance(entry, Mapping):
        return found
    described = {**entry, **(entry["type"] if isinstance(entry.get("type"), Mapping) else {})}
    columns = {role: str(described[field]) for field, role in NAMED_FIELDS.items() if described.get(field) and role in ROLES}
    odd = [name for name in FORMATS if described.get(name) and described[name] not in PLAIN_FORMATS and name != "chat_template"]
    left = [f"{', '.join(odd)} of {entry['path']}: rows become text by the chat template alone"] if odd else []
    return Located(found.data, {role: column for role, column in columns.items() if role != column}, (*found.left, *left))


def tracker(name: str) -> Rule:
    """The rule of use_wandb and the like."""
    return lambda value, values: trackers(name if value else "none", values)


def wandb_project(value: Any, values: Values) -> Became:
    """A project switches W&B on."""
    return trackers("wandb", values) if value else TOLD_ELSEWHERE


def every(ours: str, otherwise: str) -> Rule:
    """The rule of eval_steps and save_steps, which need no strategy beside them."""
    return lambda value, values: interval(ours, ours, otherwise=otherwise)("steps", values) if value else TOLD_ELSEWHERE


def per_epoch(what: str, otherwise: str) -> Rule:
    """The rule of evals_per_epoch and saves_per_epoch."""

    def rule(value: Any, _: Values) -> Became:
        return Became("changed", why=f"{EPOCHS}: {otherwise}, or as {what} says") if value else TOLD_ELSEWHERE

    return rule


def special_tokens(value: Any, _: Values) -> Became:
    """Padding needs no token; another end of sequence would change what the model learns to end with."""
    others = [name for name in (value or {}) if name not in ("pad_token", "unk_token") and value[name] is not None]
    if others:
        return Became("unsupported", why=f"{', '.join(others)}: the tokenizer's own tokens stand; set them in its tokenizer_config.json")
    return Became("unneeded", why="nothing is padded" if value else ANYWAY)


def plugins(value: Any, _: Values) -> Became:
    """Kernels are the engine's own; what else a plugin does is not known."""
    others = [name for name in (value or []) if not any(word in str(name).lower() for word in ("liger", "cut_cross_entropy"))]
    if others:
        return Became("unsupported", why=f"{', '.join(map(str, others))}: no code but orpo's own is run")
    return Became("unneeded", why="the engine has kernels of its own")


RULES: Mapping[str, Rule] = {
    **batch("micro_batch_size"),
    **length("num_epochs"),
    "rl": method,
    "rl_beta": beta,
    "dpo_beta": beta,
    "orpo_alpha": alpha,
    "trl": trl_section,
    "simpo_gamma": read_as("gamma"),
    "kto_desirable_weight": read_as("desirable_weight"),
    "kto_undesirable_weight": read_as("undesirable_weight"),
    "dpo_label_smoothing": read_as("label_smoothing"),
    "precompute_ref_log_probs": lambda value, _: Became("carried", {"reference": "precomputed"}) if value else TOLD_ELSEWHERE,
    "datasets": entries("data"),
    "test_datasets": entries("eval_data"),
    "val_set_size": lambda value, _: Became("carried", {"holdout": value}) if value else TOLD_ELSEWHERE,
    "sequence_len": sequence_len,
    "excess_length_strategy": overlong,
    "chat_template": chat_template,
    "train_on_inputs": train_on_inputs,
    "adapter": adapter,
    "lora_target_linear": target_linear,
    "lora_target_modules": target_modules,
    "bf16": precision,
    "bfloat16": precision,
    "fp16": half_precision,
    "float16": half_precision,
    "float32": lambda value, _: Became("carried", {"dtype": "float32"}) if value else TOLD_ELSEWHERE,
    "optimizer": optimizer,
    "lr_scheduler": scheduler,
    "warmup_steps": warmup,
    "warmup_ratio": lambda value, values: TOLD_ELSEWHERE if values.get("warmup_steps") else warmup(value, values),
    "eval_steps": every("eval_steps", AT_ENDS),
    "save_steps": every("save_steps", AT_END),
    "eval_strategy": interval("eval_steps", "eval_strategy", otherwise=AT_ENDS),
    "save_strategy": interval("save_steps", "save_strategy", otherwise=AT_END),
    "evals_per_epoch": per_epoch("eval_steps", AT_ENDS),
    "saves_per_epoch": per_epoch("save_steps", AT_END),
    "logging_steps": logging_interval,
    "save_total_limit": checkpoints_kept,
    "output_dir": run_folder,
    "resume_from_checkpoint": resuming,
    "gradient_checkpointing": RECOMPUTED,
    "use_wandb": tracker("wandb"),
    "use_tensorboard": tracker("tensorboard"),
    "use_mlflow": tracker("mlflow"),
    "use_comet": tracker("comet_ml"),
    "wandb_project": wandb_project,
    "special_tokens": special_tokens,
    "plugins": plugins,
    **for_reasons(not_needed, NOT_NEEDED),
    **for_reasons(not_supported, NOT_SUPPORTED),
    **all_told_elsewhere("chat_template_jinja", "dpo_loss_type", "reward_model", "num_labels"),
}

AXOLOTL = Tool("Axolotl", "axolotl", MARKS, defaults, RULES)

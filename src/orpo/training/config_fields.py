"""Every setting of `orpo train`, once: type, default, and what command line, YAML, docs and report say of it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from orpo.objectives.catalogue import OBJECTIVES, PRESETS, objective_options
from orpo.training.recipes import RECIPES

Kind = Literal["text", "int", "float", "bool", "choice", "paths", "names", "int or auto", "count or share"]
"""How a value is written: `paths` and `names` are one text or a list; a `count or share` is a whole number, or a fraction below 1."""

SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt")
"""The schedules of transformers that need no settings of their own and no held-out loss."""

OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "adafactor", "sgd", "adagrad", "rmsprop")
"""The optimizers of transformers that need no package beside torch."""

BITSANDBYTES_OPTIMIZERS = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit")
"""Those that bitsandbytes brings: AdamW with moments in 8 bits, or in memory that a GPU can page out."""

TRACKERS: Mapping[str, str] = {
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet_ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Integration of transformers -> the module it needs. Only what a user starts himself; cloud services attach themselves."""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a setting beside its default. `least` and `most` belong to the range, `above` and `below` do not."""

    help: str
    kind: Kind
    group: str
    choices: tuple[str, ...] = ()
    unit: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    @property
    def range_text(self) -> str:
        """The range in words, '' for none."""
        parts = (("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(f"{word} {limit:.10g}" for word, limit in parts if limit is not None)


def _set(default: Any, help_text: str, kind: Kind, group: str, **more: Any) -> Any:
    """A field with its About."""
    return field(default=default, metadata={"about": About(help_text, kind, group, **more)})


DATA, LOSS, LENGTH, OPTIMIZER = "Model and data", "Objective", "Length of the run", "Optimizer"
MEMORY, LORA, WATCH, PLACE, SAMPLES = "Speed and memory", "LoRA", "Watching and saving", "Run directory", "Samples"


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training run, names as in TRL and transformers where they have one. '' and () of model and data mean not set."""

    recipe: str | None = _set(
        None, "Settings to start from; a file and flags win over them. orpo init --recipe writes one out.", "choice", DATA, choices=RECIPES
    )
    model: str = _set("", "A folder that AutoModelForCausalLM.from_pretrained reads, a Hub id, or builtin.", "text", DATA)
    data: tuple[str, ...] = _set((), "Preference pairs: files, folders, or Hub ids (org/name@revision:split).", "paths", DATA)
    eval_data: tuple[str, ...] = _set((), "Held-out pairs, never trained on.", "paths", DATA)
    holdout: int | float = _set(
        0, "Pairs of the data to hold out: below 1 a fraction, from 1 on a count; 0 for none.", "count or share", DATA, least=0
    )
    columns: str | None = _set(None, "Map columns of the data: prompt=question,chosen=good,rejected=bad.", "text", DATA)
    template: str = _set("auto", "Chat template: auto, tokenizer, chatml, raw, or a .jinja file.", "text", DATA)
    pair_labelled: bool = _set(False, "Pair labelled rows (prompt, completion, label) that share a prompt.", "bool", DATA)
    max_bad_rows: int = _set(0, "Rows that may be wrong before this is an error; all are counted.", "int", DATA, least=0)
    max_length: int = _set(
        2048, "Longest row, prompt and one completion; at most the model's positions.", "int", DATA, unit="tokens", least=2
    )
    overlong: str = _set("drop", "What happens to longer rows.", "choice", DATA, choices=("drop", "cut-completion", "error"))

    objective: str = _set("orpo", "The loss.", "choice", LOSS, choices=tuple(OBJECTIVES))
    preset: str | None = _set(None, "Set the options of orpo as published code has them.", "choice", LOSS, choices=tuple(PRESETS))
    reference: str = _set(
        "auto",
        "Where the log-probs of the model before training come from: adapter (LoRA off), copy (a second model), precomputed (one pass "
        "before, kept on disk); auto is adapter with use_peft, else precomputed.",
        "choice",
        LOSS,
        choices=("auto", "adapter", "copy", "precomputed"),
    )
    reference_cache: str | None = _set(
        None,
        "Folder that keeps precomputed reference log-probs for other runs as well; otherwise they lie in the run directory.",
        "text",
        LOSS,
    )
    objective_options: Mapping[str, Any] = field(default_factory=dict)  # beta and the like; resolve_config fills in every option

    max_steps: int = _set(-1, "Optimizer steps; -1 goes by num_train_epochs.", "int", LENGTH, unit="steps")
    num_train_epochs: float = _set(1.0, "Times the data are gone through; may be a fraction.", "float", LENGTH, above=0)
    pairs_per_step: int = _set(8, "Pairs of one optimizer step, over all processes.", "int", LENGTH, unit="pairs", least=1)
    seed: int = _set(0, "Seed of data order, dropout, new weights and samples.", "int", LENGTH, least=0, most=2**32 - 1)

    learning_rate: float = _set(8e-6, "Peak learning rate; 8e-6 is the paper's.", "float", OPTIMIZER, above=0, most=1)
    lr_scheduler_type: str = _set("linear", "Course of the learning rate.", "choice", OPTIMIZER, choices=SCHEDULERS)
    warmup_steps: int | float = _set(
        0, "Steps of warm-up; below 1 a fraction of all steps.", "count or share", OPTIMIZER, unit="steps", least=0
    )
    optim: str = _set(
        "adamw_torch_fused",
        "Optimizer, as transformers names it; 8-bit and paged ones need bitsandbytes.",
        "choice",
        OPTIMIZER,
        choices=(*OPTIMIZERS, *BITSANDBYTES_OPTIMIZERS),
    )
    weight_decay: float = _set(0.0, "Decoupled weight decay.", "float", OPTIMIZER, least=0)
    adam_beta1: float = _set(0.9, "First moment's decay of AdamW.", "float", OPTIMIZER, least=0, below=1)
    adam_beta2: float = _set(0.999, "Second moment's decay of AdamW.", "float", OPTIMIZER, least=0, below=1)
    max_grad_norm: float = _set(1.0, "Gradients are scaled down to this norm; 0 leaves them.", "float", OPTIMIZER, least=0)
    disable_dropout: bool = _set(
        True, "Switch off dropout in the model, as TRL does; with dropout, prompts are computed twice.", "bool", OPTIMIZER
    )

    tokens_per_micro_batch: int | str = _set(
        "auto", "Tokens held in memory at once. Changes speed and memory, not the result.", "int or auto", MEMORY, unit="tokens", least=2
    )
    dtype: str = _set(
        "auto", "Type of matrix products; trained weights stay float32.", "choice", MEMORY, choices=("auto", "float32", "bfloat16")
    )
    gradient_checkpointing: str = _set(
        "auto", "Recompute activations to save memory; auto when they would not fit.", "choice", MEMORY, choices=("auto", "on", "off")
    )

    num_processes: int | str = _set(
        "auto",
        "Processes on this machine, started by the command itself; auto is one for each GPU. Changes speed, not the result.",
        "int or auto",
        MEMORY,
        least=1,
    )
    sharding: str = _set(
        "none",
        "What processes divide among them: none (each holds all), or fsdp (weights, gradients and optimizer state; FSDP2).",
        "choice",
        MEMORY,
        choices=("none", "fsdp"),
    )

    use_peft: bool = _set(False, "Train LoRA adapters and leave the model's weights frozen.", "bool", LORA)
    load_in_4bit: bool = _set(
        False, "Hold the frozen weights in 4 bits (NF4, double quantisation): QLoRA, with use_peft; needs bitsandbytes.", "bool", LORA
    )
    lora_r: int = _set(16, "Rank of the adapters.", "int", LORA, least=1)
    lora_alpha: int = _set(32, "Adapters are scaled by lora_alpha / lora_r.", "int", LORA, least=1)
    lora_dropout: float = _set(0.0, "Dropout before the adapters.", "float", LORA, least=0, below=1)
    lora_target_modules: str | tuple[str, ...] = _set("all-linear", "Layers that get adapters: all-linear, or their names.", "names", LORA)

    logging_steps: int = _set(10, "Steps between two lines of metrics.", "int", WATCH, unit="steps", least=1)
    eval_steps: int = _set(0, "Steps between two evaluations; 0 evaluates at start and end alone.", "int", WATCH, unit="steps", least=0)
    save_steps: int = _set(0, "Steps between two checkpoints; 0 saves at the end alone.", "int", WATCH, unit="steps", least=0)
    save_total_limit: int = _set(2, "Checkpoints of this run that are kept.", "int", WATCH, least=1)
    report_to: str | tuple[str, ...] = _set("none", f"Trackers: none, or of {', '.join(TRACKERS)}.", "names", WATCH)

    output_dir: str | None = _set(None, "The run directory itself; otherwise a new numbered folder under runs/.", "text", PLACE)
    fresh: bool = _set(False, "Start over instead of resuming; what was there is moved aside.", "bool", PLACE)
    resume_anyway: bool = _set(False, "Resume although settings or data changed.", "bool", PLACE)

    num_samples: int = _set(4, "Prompts answered before and after training, for the report.", "int", SAMPLES, least=0)
    max_new_tokens: int = _set(64, "Longest of these answers.", "int", SAMPLES, unit="tokens", least=1)


FIELDS: Mapping[str, About] = {item.name: item.metadata["about"] for item in fields(TrainConfig) if "about" in item.metadata}
"""Every setting but the objective's own options."""

DEFAULTS: Mapping[str, Any] = {item.name: item.default for item in fields(TrainConfig) if item.name in FIELDS}

# The objectives check their own ranges as well, but need torch for it; tests hold the two together.
_OPTION_RANGES: Mapping[str, Mapping[str, float]] = {"beta": {"least": 0}, "odds_temperature": {"above": 0}}


def reference_way(config: TrainConfig) -> str:
    """adapter, copy or precomputed: what the setting `reference` comes to."""
    if config.reference != "auto":
        return config.reference
    return "adapter" if config.use_peft else "precomputed"


def is_adamw(optim: str) -> bool:
    """Whether the optimizer has AdamW's two moments."""
    return "adamw" in optim


def option_about(objective: str) -> dict[str, tuple[About, Any]]:
    """Name -> (About, default) of the options of `objective`, read from its source."""
    return {
        option.name: (About(option.doc, option.kind, LOSS, option.choices, **_range_of(option.name)), option.default)
        for option in objective_options(objective)
    }


def _range_of(option: str) -> dict[str, Any]:
    return dict(_OPTION_RANGES.get(option, {}))


def option_names() -> frozenset[str]:
    """The options of all objectives."""
    return frozenset(option.name for name in OBJECTIVES for option in objective_options(name))


def objectives_with(option: str) -> tuple[str, ...]:
    """The objectives that have `option`."""
    return tuple(name for name in OBJECTIVES if any(known.name == option for known in objective_options(name)))


def known_names() -> tuple[str, ...]:
    """Every name that may stand in a YAML file or, with dashes, on the command line."""
    return (*FIELDS, *sorted(option_names()))

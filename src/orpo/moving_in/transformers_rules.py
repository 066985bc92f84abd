"""Rules for the settings of transformers' TrainingArguments, which TRL and LLaMA-Factory extend and Axolotl renames."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from orpo.moving_in.tool import ANYWAY, TOLD_ELSEWHERE, Became, Rule, UnfitSetting, Values, all_told_elsewhere, not_needed
from orpo.training.config_fields import OPTIMIZERS, SCHEDULERS, TRACKERS
from orpo.training.config_values import Unfit, shown

A_STEP = (
    "what one update learns from, over all processes (--processes, where there were several); "
    "how much of it is in memory at once follows from the memory there is"
)
EPOCHS = "intervals are counted in steps"
AT_END = "a checkpoint is saved at the end, and where save_steps asks for more"
AT_ENDS = "held-out pairs are measured before the first step and after the last"


def whole(name: str, value: Any) -> int:
    """`value` as a whole number from 1 on. Raises Unfit for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or int(value) != value:
        raise UnfitSetting(name, "a whole number, at least 1", "write the number there")
    return int(value)


def batch(size: str) -> Mapping[str, Rule]:
    """Rules of the batch size, which is called `size`, and of accumulation: their product is pairs_per_step."""

    def rule(value: Any, values: Values) -> Became:
        accumulation = whole("gradient_accumulation_steps", values.get("gradient_accumulation_steps") or 1)
        product = whole(size, value) * accumulation
        written = f"{size} x gradient_accumulation_steps" if "gradient_accumulation_steps" in values else size
        return Became("changed", {"pairs_per_step": product}, A_STEP, written)

    return {size: rule, **all_told_elsewhere("gradient_accumulation_steps")}


def in_steps(name: str, value: Any, values: Values) -> int | None:
    """The interval `name` in steps: a whole number, or a share of the run where its length is known; None where it is not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UnfitSetting(name, "a number of steps, or a share of all steps below 1")
    if value >= 1 or value == 0:
        return int(value)
    steps, epochs = values.get("max_steps") or -1, values.get("num_train_epochs") or 1
    total = steps if steps > 0 else values["steps_per_epoch"] * epochs if "steps_per_epoch" in values else None
    return None if total is None else max(1, round(value * total))


def interval(ours: str, strategy: str, *, default: Any = None, otherwise: str) -> Rule:
    """The rule of `strategy`: whether `ours` counts steps or epochs. `otherwise` says what happens where epochs cannot be counted."""

    def rule(value: Any, values: Values) -> Became:
        asked = _plain(value)
        if asked in ("no", "False"):
            return Became("carried", {ours: 0}) if ours == "save_steps" else TOLD_ELSEWHERE
        if asked == "steps":
            given = values.get(ours) or (values.get("logging_steps") if ours == "eval_steps" else None) or default
            steps = None if given is None else in_steps(ours, given, values)
            if steps is None and given is not None:
                return Became("changed", why=f"{ours} {shown(given)} is a share of the run, {EPOCHS}; {otherwise}", written=ours)
            return TOLD_ELSEWHERE if steps is None else Became("carried", {ours: steps}, written=ours)
        if asked == "epoch":
            steps = values.get("steps_per_epoch")
            why = f"{EPOCHS}; {otherwise}" if steps is None else f"{EPOCHS}: an epoch has {steps}"
            return Became("changed", {} if steps is None else {ours: steps}, why)
        if asked == "best":
            return Became("unsupported", why="the last model is kept; the report shows where held-out figures turned")
        raise Unfit("no, steps or epoch", f"write {strategy}: steps there")

    return rule


def _plain(value: Any) -> str:
    """A strategy as text; YAML reads `no` as false."""
    return str(getattr(value, "value", value))


def eval_interval(_: Any, values: Values) -> Became:
    """The rule of eval_steps, which without a strategy asks for nothing."""
    is_asked = "eval_strategy" in values or "evaluation_strategy" in values
    return TOLD_ELSEWHERE if is_asked else Became("unneeded", why="eval_strategy is no, unless the file says otherwise")


def logging_interval(value: Any, values: Values) -> Became:
    """The rule of logging_steps."""
    strategy = _plain(values.get("logging_strategy", "steps"))
    steps = (
        in_steps("logging_steps", value, values) if strategy == "steps" else values.get("steps_per_epoch") if strategy == "epoch" else None
    )
    if not steps:
        return Became("changed", why=f"{EPOCHS}: every 10th step is logged, unless logging_steps says otherwise")
    return Became("carried", {"logging_steps": steps})


def checkpoints_kept(value: Any, _: Values) -> Became:
    """The rule of save_total_limit."""
    return TOLD_ELSEWHERE if value is None else Became("carried", {"save_total_limit": max(1, whole("save_total_limit", value))})


def length(epochs: str) -> Mapping[str, Rule]:
    """Rules of max_steps and of the epochs, which are called `epochs`."""

    def steps(value: Any, _: Values) -> Became:
        return Became("carried", {"max_steps": whole("max_steps", value)}) if value is not None and value > 0 else TOLD_ELSEWHERE

    return {"max_steps": steps, epochs: lambda value, _: Became("carried", {"num_train_epochs": value})}


def precision(value: Any, values: Values) -> Became:
    """The rule of bf16. Where neither it nor fp16 is asked for, products run in float32."""
    if value in (None, "auto") or (value is False and values.get("fp16")):
        return TOLD_ELSEWHERE
    return Became("carried", {"dtype": "bfloat16" if value else "float32"})


def half_precision(value: Any, _: Values) -> Became:
    """The rule of fp16."""
    if not value:
        return TOLD_ELSEWHERE
    why = "no float16: its small range needs loss scaling, which skips steps; dtype auto takes bfloat16 where it is fast, else float32"
    return Became("unsupported", why=why)


def optimizer(value: Any, _: Values) -> Became:
    """The rule of the optimizer: AdamW in 8 bits or in pages is AdamW; another one that is not offered has no counterpart."""
    name = _plain(value)
    if name in OPTIMIZERS:
        return Became("carried", {"optim": name})
    if "adamw" in name or name == "adam":
        return Became(
            "changed", {"optim": "adamw_torch_fused"}, f"{name} keeps its moments in another form: here they are float32, in memory"
        )
    return Became("unsupported", why=f"{name} is not offered; there are {', '.join(OPTIMIZERS)}, the first unless set")


def scheduler(value: Any, _: Values) -> Became:
    """The rule of the course of the learning rate."""
    name = _plain(value)
    if name in SCHEDULERS:
        return Became("carried", {"lr_scheduler_type": name})
    return Became("unsupported", why=f"{name} is not offered; there are {', '.join(SCHEDULERS)}, the first unless set")


def warmup(value: Any, _: Values) -> Became:
    """The rule of warmup_steps and warmup_ratio: below 1 a share of the run."""
    return TOLD_ELSEWHERE if not value else Became("carried", {"warmup_steps": value})


def trackers(value: Any, _: Values) -> Became:
    """The rule of report_to. A tracker that is not installed would stop the run at its start, so it is left out and said."""
    names = [value] if isinstance(value, str) else list(value or [])
    if names in ([], ["none"], ["None"]):
        return TOLD_ELSEWHERE
    if names == ["all"]:
        return Became("changed", why="name the trackers: all would send the run to whatever is installed")
    usable = [name for name in names if name in TRACKERS and importlib.util.find_spec(TRACKERS[name]) is not None]
    missing = [name for name in names if name not in usable]
    ours = {"report_to": usable} if usable else {}
    if not missing:
        return Became("carried", ours)
    return Became("unsupported", ours, f"{', '.join(missing)}: not installed here, or not known; install it first")


def run_folder(value: Any, _: Values) -> Became:
    """The rule of output_dir."""
    if not value:
        return TOLD_ELSEWHERE
    return Became(
        "changed", {"output_dir": value}, "the run directory: the model lies in its model/ or adapter/, beside metrics and report"
    )


def resuming(value: Any, _: Values) -> Became:
    """The rule of resume_from_checkpoint."""
    return Became("unneeded", why="the same command with the same output_dir goes on from its newest valid checkpoint" if value else ANYWAY)


RECOMPUTED = not_needed("activations are recomputed where memory asks for it (gradient_checkpointing: auto); the result is the same")

TRAINING_ARGUMENTS: Mapping[str, Rule] = {
    **batch("per_device_train_batch_size"),
    **length("num_train_epochs"),
    "eval_strategy": interval("eval_steps", "eval_strategy", otherwise=AT_ENDS),
    "evaluation_strategy": interval("eval_steps", "evaluation_strategy", otherwise=AT_ENDS),
    "save_strategy": interval("save_steps", "save_strategy", default=500, otherwise=AT_END),
    "eval_steps": eval_interval,
    "logging_steps": logging_interval,
    "save_total_limit": checkpoints_kept,
    "bf16": precision,
    "fp16": half_precision,
    "optim": optimizer,
    "lr_scheduler_type": scheduler,
    "warmup_steps": warmup,
    "warmup_ratio": warmup,
    "report_to": trackers,
    "output_dir": run_folder,
    "resume_from_checkpoint": resuming,
    "gradient_checkpointing": RECOMPUTED,
    "activation_checkpointing": RECOMPUTED,
    **all_told_elsewhere("save_steps", "logging_strategy"),
}

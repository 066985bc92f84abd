"""Values of other tools enter, ours leave, None where nothing needs to be set; ConfigError for what has no counterpart here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orpo.errors import ConfigError
from orpo.training.config_file import Setting
from orpo.training.config_values import shown

NO_FLOAT16 = "no float16: its small range needs loss scaling, which skips steps; bfloat16 has the range of float32"


def refuse(setting: Setting, expected: str, fix: str) -> ConfigError:
    """The error for a value that means nothing here."""
    return ConfigError(f"{setting.name} is {shown(setting.value)}", where=where(setting), expected=expected, fix=fix)


def where(setting: Setting) -> str:
    """The place as an error begins with it."""
    return setting.place.removeprefix("flag ")


def _adapter(setting: Setting) -> bool | None:
    kinds: Mapping[object, bool | None] = {True: True, False: False, "lora": True, "full": False, "none": False, "": None}
    if isinstance(setting.value, bool | str) and setting.value in kinds:
        return kinds[setting.value]
    raise refuse(setting, "lora, qlora, or full", "write use_peft: true for LoRA; leave it out to train all weights")


def _quantization_bit(setting: Setting) -> bool | None:
    kinds: Mapping[object, bool | None] = {4: True, "4": True, "none": None, "": None}
    if isinstance(setting.value, bool) or setting.value not in kinds:
        raise refuse(setting, "4: other sizes are not offered", "write load_in_4bit: true, with use_peft: true")
    return kinds[setting.value]


def _nf4(setting: Setting) -> None:
    if setting.value != "nf4":
        raise refuse(setting, "nf4, the type that load_in_4bit takes", "remove it")


def _double_quantised(setting: Setting) -> None:
    if setting.value is not True:
        raise refuse(setting, "true: the scales of 4-bit weights are always quantised as well", "remove it")


def _dtype(setting: Setting) -> object:
    if setting.value in ("float16", "half", "fp16"):
        raise refuse(setting, NO_FLOAT16, "write dtype: auto, bfloat16 or float32")
    return {"bf16": "bfloat16", "fp32": "float32", "float": "float32"}.get(str(setting.value), setting.value)


def _bf16(setting: Setting) -> str:
    named: Mapping[object, str] = {True: "bfloat16", False: "float32", "auto": "auto", "full": "bfloat16"}
    if not isinstance(setting.value, bool | str) or setting.value not in named:
        raise refuse(setting, "true, false or auto", "write dtype: auto, bfloat16 or float32")
    return named[setting.value]


def _fp32(setting: Setting) -> str | None:
    if not isinstance(setting.value, bool):
        raise refuse(setting, "true or false", "write dtype: auto, bfloat16 or float32")
    return "float32" if setting.value else None


def _warmup_ratio(setting: Setting) -> object:
    if isinstance(setting.value, bool) or not isinstance(setting.value, int | float) or not 0 <= setting.value < 1:
        raise refuse(
            setting, "a fraction of the steps, at least 0 and below 1", "write warmup_steps: 0.1 for a tenth, or a number of steps"
        )
    return setting.value


def _target(setting: Setting) -> object:
    return "all-linear" if setting.value in ("all", "all-linear") else setting.value


def _target_linear(setting: Setting) -> str | None:
    if not isinstance(setting.value, bool):
        raise refuse(setting, "true or false", "write lora_target_modules: all-linear, or names of layers")
    return "all-linear" if setting.value else None


def _chat_template(setting: Setting) -> object:
    return {"tokenizer_default": "tokenizer", "default": "auto"}.get(str(setting.value), setting.value)


VALUES: Mapping[str, Callable[[Setting], object]] = {
    "adapter": _adapter,
    "finetuning_type": _adapter,
    "train_type": _adapter,
    "peft": _adapter,
    "quantization_bit": _quantization_bit,
    "bnb_4bit_quant_type": _nf4,
    "quantization_type": _nf4,
    "bnb_4bit_use_double_quant": _double_quantised,
    "use_bnb_nested_quant": _double_quantised,
    "double_quantization": _double_quantised,
    "bnb_4bit_compute_dtype": _dtype,
    "torch_dtype": _dtype,
    "bf16": _bf16,
    "fp32": _fp32,
    "warmup_ratio": _warmup_ratio,
    "lora_target": _target,
    "target_modules": _target,
    "lora_target_linear": _target_linear,
    "chat_template": _chat_template,
}
"""Other name -> how its value becomes ours."""

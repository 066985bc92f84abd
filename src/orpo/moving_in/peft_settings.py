"""PEFT's settings of adapters enter, ours leave, or a refusal that names what is no plain LoRA."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from orpo.errors import ConfigError

CARRIED = ("r", "lora_alpha", "lora_dropout", "target_modules")
MEANINGLESS = (
    *("task_type", "peft_type", "peft_version", "base_model_name_or_path", "auto_mapping", "revision", "inference_mode"),
    *("runtime_config", "megatron_core", "qalora_group_size"),
)
"""Fields that change nothing of a plain LoRA that is trained."""


def settings_of(peft_config: Any, model_type: str) -> dict[str, Any]:
    """use_peft and lora_* of a LoraConfig, for a model of `model_type`. Raises ConfigError for another kind of adapter."""
    import peft

    if not isinstance(peft_config, peft.LoraConfig):
        raise ConfigError(
            f"peft_config is a {type(peft_config).__name__}",
            where="ORPOTrainer",
            expected="a peft.LoraConfig",
            fix="give a LoraConfig, or wrap the model yourself (peft.get_peft_model) and leave peft_config out",
        )
    odd = [item.name for item in fields(peft_config) if item.name not in (*CARRIED, *MEANINGLESS) and not _is_default(peft_config, item)]
    if odd:
        raise ConfigError(
            f"peft_config sets {', '.join(odd)}",
            where="ORPOTrainer",
            expected=f"plain LoRA: {', '.join(CARRIED)}",
            fix="take it out, or wrap the model yourself (peft.get_peft_model) and leave peft_config out",
        )
    return _settings(peft_config, targets(peft_config, model_type))


def settings_of_adapted(model: Any) -> dict[str, Any]:
    """use_peft and lora_* of a PEFT model, as far as they have a name here: it is trained as it is."""
    peft_config = model.peft_config[model.active_adapter]
    kinds = peft_config.target_modules
    return _settings(peft_config, sorted(kinds) if isinstance(kinds, set | list | tuple) else "all-linear")


def targets(peft_config: Any, model_type: str) -> Any:
    """The layers that get adapters: as given, or where none are, those that PEFT chooses for the architecture."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOSEN

    given = peft_config.target_modules if peft_config.target_modules is not None else CHOSEN.get(model_type)
    if given is None or (isinstance(given, str) and given != "all-linear"):
        raise ConfigError(
            f"peft_config.target_modules is {given!r}"
            if given
            else f"peft_config names no target_modules, and PEFT has none for {model_type}",
            where="ORPOTrainer",
            expected="all-linear, or a list of names",
            fix='give target_modules="all-linear"',
        )
    return given if isinstance(given, str) else sorted(given)


def _settings(peft_config: Any, target_modules: Any) -> dict[str, Any]:
    return {
        "use_peft": True,
        "lora_r": getattr(peft_config, "r", None) or 1,
        "lora_alpha": int(getattr(peft_config, "lora_alpha", None) or 1),
        "lora_dropout": float(getattr(peft_config, "lora_dropout", None) or 0.0),
        "lora_target_modules": target_modules,
    }


def _is_default(peft_config: Any, item: Any) -> bool:
    default = item.default_factory() if item.default is MISSING else item.default
    return bool(getattr(peft_config, item.name) == default)

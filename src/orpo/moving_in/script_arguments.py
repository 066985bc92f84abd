"""What a script gives to ORPOTrainer: what can be used goes through, what cannot raises ConfigError and says what to give instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
import transformers

from orpo.errors import ConfigError
from orpo.moving_in.orpo_config import ORPOConfig
from orpo.pipeline.run import quiet_libraries

PLACE = "ORPOTrainer"

REFUSED: Mapping[str, tuple[str, str]] = {
    "data_collator": ("rows are checked, tokenized and packed here", "leave it out; a column is renamed in the dataset"),
    "model_init": ("one model is trained", "give model"),
    "preprocess_logits_for_metrics": ("logits are never held whole", "leave it out; accuracy, margins and log-probs are logged"),
    "optimizers": ("optim, learning_rate, lr_scheduler_type and warmup_steps of args", "set those"),
    "compute_metrics": ("logits are never held whole", "leave it out; accuracy, margins and log-probs are logged"),
}


def refuse_given(**arguments: Any) -> None:
    """Nothing; raises ConfigError for the first of `arguments` that is not None."""
    for name, value in arguments.items():
        if value is not None:
            refuse(f"{name} is given", expected=REFUSED[name][0], fix=REFUSED[name][1])


def refuse(problem: str, *, expected: str, fix: str) -> NoReturn:
    raise ConfigError(problem, where=PLACE, expected=expected, fix=fix)


def usable_args(args: Any) -> ORPOConfig:
    """`args`, or TRL's defaults; on a machine with a GPU, use_cpu cannot be honoured."""
    found = ORPOConfig() if args is None else args
    if not isinstance(found, ORPOConfig):
        refuse(f"args is a {type(found).__module__}.{type(found).__name__}", expected="orpo's own", fix="from orpo import ORPOConfig")
    if found.use_cpu and torch.cuda.is_available():
        refuse("use_cpu is true", expected="the GPU, where there is one", fix="start with an empty CUDA_VISIBLE_DEVICES")
    return found


def usable_rows(dataset: Any, name: str) -> Any:
    """`dataset`, where its rows can be read in any order."""
    import datasets

    if dataset is None or isinstance(dataset, datasets.Dataset):
        return dataset
    kinds = {
        datasets.DatasetDict: "name one split: dataset['train']",
        dict: "give one dataset; evaluate(other) takes another",
        datasets.IterableDataset: "load it without streaming: rows are read more than once",
    }
    fix = next((text for kind, text in kinds.items() if isinstance(dataset, kind)), "datasets.Dataset.from_list(rows) makes one")
    refuse(f"{name} is a {type(dataset).__name__}", expected="a datasets.Dataset", fix=fix)


def usable_model(model: Any) -> Any:
    """The model in memory, None for a name. Raises ConfigError for one that cannot be trained in place."""
    quiet_libraries()
    if model is None:
        refuse("model is missing", expected="a folder, a Hub id, or a loaded model", fix="give model")
    if isinstance(model, str):
        return None
    if not hasattr(model, "config") or not isinstance(model, torch.nn.Module):
        refuse(f"model is a {type(model).__name__}", expected="a model of transformers, or a PEFT model around one", fix="give one")
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        refuse("the model's weights are quantised", expected="weights in float32 or bfloat16", fix="load it without quantization_config")
    if len(set(map(str, getattr(model, "hf_device_map", {}).values()))) > 1:
        refuse("the model is spread over several devices", expected="one device", fix="load it without device_map")
    return model


def usable_tokenizer(processing_class: Any) -> Any:
    """`processing_class`, where it is a tokenizer."""
    if processing_class is None or isinstance(processing_class, transformers.PreTrainedTokenizerBase):
        return processing_class
    fix = "give processing_class.tokenizer" if hasattr(processing_class, "tokenizer") else "give a tokenizer"
    refuse(f"processing_class is a {type(processing_class).__name__}", expected="a tokenizer: only text is trained on", fix=fix)

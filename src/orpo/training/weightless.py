"""The model of a run as its config alone describes it: weights without contents, to count what training needs before anything is loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers

from orpo.engine.dropout import disable_dropout
from orpo.engine.four_bit_shape import in_four_bits
from orpo.objectives.catalogue import reads
from orpo.training import models
from orpo.training.assemble import enable_checkpointing
from orpo.training.config import TrainConfig


def model_builder(
    config: TrainConfig, num_tokens: int, new_ids: Sequence[int], dtype: torch.dtype, *, architecture: Any = None
) -> Callable[[bool], Any]:
    """A function that makes the model of a run from its config alone, with or without checkpointing; its weights hold nothing."""
    architecture = architecture or models.load_architecture(str(config.model))

    def build(checkpointing: bool) -> Any:
        kept = dtype if config.use_peft else torch.float32
        if reads(config.objective) == "scores":
            scored = copy.deepcopy(architecture)
            scored.num_labels = 1
            body = transformers.AutoModelForSequenceClassification.from_config(scored, dtype=kept)
        else:
            body = transformers.AutoModelForCausalLM.from_config(architecture, dtype=kept)
        if new_ids and num_tokens > body.get_input_embeddings().weight.shape[0]:
            body.resize_token_embeddings(num_tokens, mean_resizing=False)
        if config.disable_dropout:
            disable_dropout(body)
        if config.load_in_4bit:
            in_four_bits(body)
        if config.use_peft:
            body = models.with_lora(body, config, new_ids=new_ids)
        if checkpointing:
            enable_checkpointing(body)
        return body

    return build

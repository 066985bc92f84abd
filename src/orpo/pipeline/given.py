"""What a caller from Python holds in memory already, in place of what the settings name: a model, its tokenizer, rows, callbacks."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orpo.data.rows import RowReader
from orpo.errors import ConfigError
from orpo.runs.manifest import BaseModel
from orpo.training import models
from orpo.training.checkpointing import base_model_facts
from orpo.training.config import TrainConfig

if TYPE_CHECKING:
    from orpo.training.trainer import PreferenceTrainer


@dataclass(frozen=True, slots=True)
class Given:
    """What is there already; what is None is loaded by the name that the settings give it.

    `model` is trained in place, and may be a PEFT model; `rows` has the data of names in `data` and `eval_data`. `began` is called with
    the trainer before its first step.
    """

    model: Any = None
    tokenizer: Any = None
    rows: Mapping[str, RowReader] = field(default_factory=dict)
    callbacks: tuple[Any, ...] = ()
    began: Callable[[PreferenceTrainer], None] | None = None

    def require_whole(self, config: TrainConfig) -> None:
        """Nothing; raises ConfigError where a model in memory would be divided: its owner could not use it afterwards."""
        if self.model is not None and config.sharding != "none":
            raise ConfigError("a model in memory is not divided among processes", fix="name its folder, or set sharding: none")

    def architecture(self, config: TrainConfig) -> Any:
        """The config of the model: a copy, so that planning changes nothing of it."""
        return copy.deepcopy(self.model.config) if self.model is not None else models.load_architecture(str(config.model))

    def tokenizer_of(self, config: TrainConfig) -> Any:
        """The tokenizer that the run uses, and adds the tokens of a template to."""
        return self.tokenizer if self.tokenizer is not None else models.load_tokenizer(str(config.model))

    def base_model(self, config: TrainConfig) -> BaseModel:
        """What identifies the weights that training starts from."""
        if self.model is None:
            return base_model_facts(str(config.model))
        return BaseModel(id=str(config.model), revision=None, weights_sha256=weights_sha256(self.model))

    def body(self, dtype: torch.dtype, checkpoint: Path | None) -> Any:
        """The model in memory, as `checkpoint` has it where one is given: frozen weights in `dtype`, trained ones in float32."""
        body = self.model.to(dtype)
        if hasattr(body, "peft_config"):
            for parameter in body.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        elif checkpoint is not None:
            saved = models.load_model(str(checkpoint), dtype=dtype)
            if saved.get_input_embeddings().weight.shape != body.get_input_embeddings().weight.shape:
                body.resize_token_embeddings(saved.get_input_embeddings().weight.shape[0], mean_resizing=False)
            body.load_state_dict(saved.state_dict())
        return body


NOTHING = Given()


def weights_sha256(model: Any) -> str:
    """sha256 over the names and the bytes of all weights of `model`."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

"""Model shapes with random weights: a name enters, a causal language model leaves, the same to the last bit in every process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A Llama: sizes only. With `lora` the weights are frozen and adapters of rank 16 on all linear layers of the body are trained."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    head_dim: int
    lora: bool = False

    @property
    def body_parameters(self) -> int:
        """N: the matrices that every token of the body goes through. Embedding, head and norms are not in it."""
        return self.layers * sum(rows * columns for rows, columns in self.layer_matrices)

    @property
    def layer_matrices(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the linear layers of one decoder layer: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = ((self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden))
        return (*attention, (self.hidden, self.intermediate), (self.hidden, self.intermediate), (self.intermediate, self.hidden))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, with N."""
        return {**asdict(self), "body_parameters": self.body_parameters}


SHAPES = {
    "tiny": ModelShape(2, 64, 4, 2, 128, 512, tied=True, head_dim=16),
    "tiny-lora": ModelShape(2, 64, 4, 2, 128, 512, tied=True, head_dim=16, lora=True),
    "135m": ModelShape(30, 576, 9, 3, 1536, 49_152, tied=True, head_dim=64),
    "1b": ModelShape(16, 2048, 32, 8, 8192, 128_256, tied=True, head_dim=64),
    "8b-lora": ModelShape(32, 4096, 32, 8, 14_336, 128_256, tied=False, head_dim=128, lora=True),
}
"""135m is SmolLM2 135M, 1b Llama 3.2 1B, 8b Llama 3.1 8B."""


PAD_ID = 2
"""The token that a reward model takes for padding: no text has it as its last one."""


def build_body(shape: ModelShape, *, seed: int, device: str, dtype: str, positions: int) -> Any:
    """A causal language model of `shape` on `device`. Trained weights are float32, frozen ones (LoRA) are in `dtype`, as in a run."""
    import transformers

    config = _config(shape, positions=positions)
    body = _random(transformers.AutoModelForCausalLM, config, dtype if shape.lora else "float32", seed=seed, device=device)
    return _with_adapters(body) if shape.lora else body


def build_scorer(shape: ModelShape, *, seed: int, device: str, positions: int) -> Any:
    """A reward model of `shape` on `device`, float32: a scalar head in place of the vocabulary, its scores about as large as 1.

    Those of a new head are near 0, where the loss is ln 2 whatever they are.
    """
    import transformers

    assert not shape.lora, "a reward model is trained whole here"
    config = _config(shape, positions=positions, num_labels=1, pad_token_id=PAD_ID)
    body = _random(transformers.AutoModelForSequenceClassification, config, "float32", seed=seed, device=device)
    body.score.weight.data.mul_(shape.hidden**-0.5 / config.initializer_range)
    return body


def _config(shape: ModelShape, *, positions: int, **more: Any) -> Any:
    import transformers

    settings: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, **more}
    return transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=max(positions, 2048),
        tie_word_embeddings=shape.tied,
        **settings,
    )


def _random(auto: Any, config: Any, dtype: str, *, seed: int, device: str) -> Any:
    """A model of `config` as `auto` makes it, its weights drawn from `seed`."""
    import torch

    config.dtype = getattr(torch, dtype)
    torch.manual_seed(seed)
    with torch.device(device):
        return auto.from_config(config, dtype=config.dtype)


def _with_adapters(body: Any) -> Any:
    """`body` with the adapters that `orpo train --use-peft` gives it."""
    from orpo.training.config import TrainConfig
    from orpo.training.models import with_lora

    return with_lora(body, TrainConfig(use_peft=True), new_ids=())

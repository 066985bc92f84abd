"""The parts of a language model that the engine calls: the causal model inside a PEFT wrapper, and its stack of layers without the head."""

from __future__ import annotations

from typing import Any

from torch import nn

from orpo.engine.attention import NAME, register


def causal_model(body: nn.Module) -> Any:
    """The causal language model of transformers in `body`: `body` itself, or what a PEFT model wraps."""
    wrapped = getattr(body, "get_base_model", None)
    return wrapped() if wrapped is not None else body


def layer_stack(causal: Any) -> Any:
    """The model without its head: token ids in, hidden states after the last norm out."""
    stack = causal.base_model
    if stack is causal:
        # Llama 4 names a part that only its multimodal parent has (transformers 5.23).
        stack = getattr(causal, "model", causal)
    assert stack is not causal, f"{type(causal).__name__} has no stack of layers under {causal.base_model_prefix!r}"
    return stack


def takes_packs(causal: Any) -> bool:
    """Whether attention over packs is switched on in `causal`."""
    return bool(causal.config._attn_implementation == NAME)


def switch_to_packs(causal: Any) -> str:
    """The attention implementation that was in use; `causal` now attends over packs, and fails where no layout is given."""
    register()
    before = str(causal.config._attn_implementation)
    causal.set_attn_implementation(NAME)
    return before


def switch_back(causal: Any, implementation: str) -> None:
    """Nothing; `causal` attends as before, for generation and for saving."""
    causal.set_attn_implementation(implementation)

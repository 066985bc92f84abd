"""A causal language model of transformers enters, its fused head leaves; or the reason why the model's own forward must make the logits.

What each model type does to its logits was read from the modelling code of transformers 5.23.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from orpo.engine.head import Head

MULTIPLIED = {
    "cohere": "logit_scale",
    "cohere2": "logit_scale",
    "cohere2_moe": "logit_scale",
    "cohere_compass_text": "logit_scale",
    "falcon_h1": "lm_head_multiplier",
    "hyperclovax": "logits_scaling",
}
"""Model types whose logits are multiplied, by which attribute of the config."""

DIVIDED = {
    "granite": "logits_scaling",
    "granite_swa": "logits_scaling",
    "granitemoe": "logits_scaling",
    "granitemoe_swa": "logits_scaling",
    "granitemoehybrid": "logits_scaling",
    "granitemoeshared": "logits_scaling",
    "minicpm3": "logits_scaling",  # divides the hidden rows: the same, for a head without bias
}
"""Model types whose logits are divided, by which attribute of the config."""

CAPPED = {
    "beam": "final_logit_softcapping",
    "gemma2": "final_logit_softcapping",
    "gemma3_text": "final_logit_softcapping",
    "gemma3n": "final_logit_softcapping",
    "gemma3n_text": "final_logit_softcapping",
    "gemma4": "final_logit_softcapping",
    "gemma4_text": "final_logit_softcapping",
    "gemma4_unified": "final_logit_softcapping",
    "gemma4_unified_text": "final_logit_softcapping",
    "nanochat": "final_logit_softcapping",
    "recurrent_gemma": "logits_soft_cap",
    "vaultgemma": "final_logit_softcapping",
    "xlstm": "output_logit_soft_cap",
}
"""Model types whose logits are soft-capped, at which attribute of the config; None there means no cap."""

TRANSFORMED = frozenset({"electra", "modernbert-decoder", "gemma4_assistant", "gemma4_unified_assistant", "prophetnet"})
"""Model types whose output layer reads something other than what their base model returns."""

SUSPICIOUS_FACTORS = (
    "logit_scale",
    "logits_scale",
    "logit_scaling",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
    "logits_multiplier",
    "logits_mup_width_multiplier",
)
SUSPICIOUS_OTHERS = (
    "final_logit_softcapping",
    "final_logit_soft_cap",
    "logit_softcapping",
    "logits_softcapping",
    "logits_soft_cap",
    "output_logit_soft_cap",
    "softcap",
    "unpadded_vocab_size",
)
"""Attributes that change the logits of some model: in a type not listed above, another value than 1 or None is not guessed at."""


class CannotFuseHead(Exception):
    """The head of this model cannot be fused, for the reason given; its own forward gives the logits."""


def head_of(causal_lm: nn.Module) -> Head:
    """The head of `causal_lm`, a CausalLM of transformers without PEFT's outer wrapper; its output layer may be wrapped by PEFT.

    An adapter's share is an autograd expression of its present value: call again after every optimizer step. Raises CannotFuseHead.
    """
    model: Any = causal_lm
    if not getattr(type(model).forward, "__module__", "").startswith("transformers.models."):
        raise CannotFuseHead(f"{type(model).__name__} brings its own forward, not one of transformers")
    if model.config.model_type in TRANSFORMED:
        raise CannotFuseHead(f"the output layer of {model.config.model_type} does not read the base model's output")
    layer = model.get_output_embeddings()
    if layer is None or not any(layer is child for child in model.children()):
        raise CannotFuseHead(f"the output layer of {model.config.model_type} is {_kind(layer)} inside a larger head")
    weight, bias, low_rank = _parts(layer)
    scale, softcap = _scale_and_softcap(model.config)
    if bias is not None and model.config.model_type == "minicpm3":
        raise CannotFuseHead("minicpm3 divides the hidden rows and not the bias of its output layer")
    return Head(weight, bias, scale, softcap, low_rank)


def _scale_and_softcap(config: Any) -> tuple[float, float | None]:
    kind, text = config.model_type, config.get_text_config()
    for table, factor_of in ((MULTIPLIED, float), (DIVIDED, lambda value: 1 / float(value))):
        if kind in table:
            value = getattr(text, table[kind])
            return 1.0 if value is None else factor_of(value), None
    if kind in CAPPED:
        cap = getattr(text, CAPPED[kind])
        return 1.0, None if cap is None else float(cap)
    for names, neutral in ((SUSPICIOUS_FACTORS, (None, 1)), (SUSPICIOUS_OTHERS, (None,))):
        for name in names:
            value = getattr(text, name, getattr(config, name, None))
            if value not in neutral:
                raise CannotFuseHead(f"{kind} sets {name}={value!r}, and what {kind} does with it is not known here")
    return 1.0, None


def _parts(layer: Any) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]:
    """Weight, bias and low-rank change of an output layer."""
    if isinstance(layer, nn.Linear):
        return *_plain_parts(layer), None
    # Imported here since a plain head needs nothing of PEFT, and importing it takes seconds.
    from peft.tuners.lora.layer import Linear as LoraLinear
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    if type(layer) is ModulesToSaveWrapper:
        active = not layer.disable_adapters and layer.active_adapters
        return _parts(layer.modules_to_save[layer.active_adapters[0]] if active else layer.original_module)
    if type(layer) is TrainableTokensWrapper:
        return *_token_parts(layer.token_adapter), None
    if type(layer) is LoraLinear:
        return _lora_parts(layer)
    raise CannotFuseHead(f"the output layer is {_kind(layer)}, not a plain linear layer")


def _plain_parts(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer that computes x W^T + b and nothing else: quantised layers may subclass nn.Linear, too."""
    weight = layer.weight
    if type(layer).forward is not nn.Linear.forward or not weight.is_floating_point() or weight.dtype.itemsize == 1:
        raise CannotFuseHead(f"the output layer is {_kind(layer)} of {weight.dtype}, not a plain linear layer")
    if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        raise CannotFuseHead("a hook stands on the output layer")
    if type(weight) not in (Tensor, nn.Parameter) or weight.ndim != 2 or weight.device.type == "meta":
        raise CannotFuseHead(
            f"the output layer's weight is a {type(weight).__name__} on {weight.device}: sharded, quantised or not in memory"
        )
    return weight, layer.bias


def _token_parts(adapter: Any) -> tuple[Tensor, Tensor | None]:
    weight, bias = _plain_parts(adapter.base_layer)
    if adapter.disable_adapters or not adapter.active_adapters or adapter.merged:
        _refuse_stale_merge(adapter)
        return weight, bias
    if bias is not None:
        raise CannotFuseHead("trainable tokens leave out the bias of the output layer")
    return adapter.get_merged_weights(adapter.active_adapters), None


def _lora_parts(layer: Any) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]:
    weight, bias, inner = _parts(layer.base_layer)
    if inner is not None:
        raise CannotFuseHead("adapters are stacked on the output layer")
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or not names:
        _refuse_stale_merge(layer)
        return weight, bias, None
    downs, ups = [], []
    for name in names:
        if name in layer.lora_variant:
            raise CannotFuseHead(f"the output layer's adapter is {_kind(layer.lora_variant[name])}, not plain LoRA")
        if not isinstance(layer.lora_dropout[name], nn.Identity):
            raise CannotFuseHead("the output layer's LoRA has dropout")
        down, up, scaling = layer.lora_A[name], layer.lora_B[name], layer.scaling[name]
        downs.append(down.weight)
        ups.append(up.weight * scaling)
        if up.bias is not None:
            bias = up.bias * scaling if bias is None else bias + up.bias * scaling
    return weight, bias, (downs[0], ups[0]) if len(names) == 1 else (torch.cat(downs), torch.cat(ups, dim=1))


def _refuse_stale_merge(layer: Any) -> None:
    if layer.disable_adapters and layer.merged:
        raise CannotFuseHead("the output layer's adapter is switched off but merged into its weight")


def _kind(thing: object) -> str:
    return f"{type(thing).__module__.split('.')[0]}'s {type(thing).__name__}"

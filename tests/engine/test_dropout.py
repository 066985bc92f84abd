"""Dropout in a model is found wherever it is kept, and switched off for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from orpo.engine.dropout import disable_dropout, dropout_rates

# PEFT 0.21 asks transformers 5.23 by the older of two names.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES: dict[str, Any] = {"vocab_size": 31, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def gpt2() -> Any:
    """A module of torch after the embeddings, in each attention twice, and in each MLP."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(**SIZES, n_embd=16, n_layer=2, n_head=2, embd_pdrop=0.1, attn_pdrop=0.2, resid_pdrop=0.3))


def opt() -> Any:
    """Numbers that the layers hand to F.dropout."""
    from transformers import OPTConfig, OPTForCausalLM

    return OPTForCausalLM(
        OPTConfig(
            **SIZES,
            hidden_size=16,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=16,
            dropout=0.1,
            attention_dropout=0.2,
        )
    )


def falcon() -> Any:
    """Rates that every forward reads from the config."""
    from transformers import FalconConfig, FalconForCausalLM

    return FalconForCausalLM(
        FalconConfig(**SIZES, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, attention_dropout=0.1, hidden_dropout=0.2)
    )


def persimmon() -> Any:
    """A module that is never called; its attention reads the rate from the config."""
    from transformers import PersimmonConfig, PersimmonForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return PersimmonForCausalLM(PersimmonConfig(**SIZES, **sizes, attention_dropout=0.1, hidden_dropout=0.0))


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(**SIZES, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
    )


def outputs_differ(model: nn.Module) -> bool:
    """Whether two training forwards of one row give different logits."""
    row = torch.tensor([[3, 4, 5, 6, 7, 8]])
    torch.manual_seed(0)
    with torch.no_grad():
        first, second = (model.train()(input_ids=row).logits for _ in range(2))
    return not torch.equal(first, second)


def test_gpt2s_dropout_is_named_place_by_place() -> None:
    layer = {"attn.attn_dropout.p": 0.2, "attn.resid_dropout.p": 0.3, "mlp.dropout.p": 0.3}
    expected = {"transformer.drop.p": 0.1, **{f"transformer.h.{i}.{place}": rate for i in range(2) for place, rate in layer.items()}}
    assert dropout_rates(gpt2()) == expected


def test_opts_dropout_is_named_place_by_place() -> None:
    layer = {"dropout": 0.1, "self_attn.dropout": 0.2}
    found = dropout_rates(opt())
    expected = {f"model.decoder.layers.{i}.{place}": rate for i in range(2) for place, rate in layer.items()}
    assert {place: rate for place, rate in found.items() if ".layers." in place} == expected
    assert all(rate == 0.1 for place, rate in found.items() if ".layers." not in place)


@pytest.mark.parametrize("build", [gpt2, opt, falcon, persimmon])
def test_once_disabled_training_forwards_are_all_alike(build: Callable[[], nn.Module]) -> None:
    model = build()
    assert outputs_differ(model)
    places = dropout_rates(model)
    assert disable_dropout(model) == len(places)
    assert dropout_rates(model) == {}
    assert not outputs_differ(model)
    assert disable_dropout(model) == 0


def test_a_model_without_dropout_has_none() -> None:
    assert dropout_rates(llama()) == {}
    assert disable_dropout(llama()) == 0


def test_the_dropout_of_lora_is_found_and_left_to_the_adapter_when_the_base_is_switched_off_before() -> None:
    from peft import LoraConfig, get_peft_model

    base = gpt2()
    disable_dropout(base)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.05, fan_in_fan_out=True))
    found = dropout_rates(adapted)
    assert set(found.values()) == {0.05}
    assert len(found) == 2
    assert all("lora_dropout" in place and "c_attn" in place for place in found)
    without = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    assert dropout_rates(without) == {}


def test_a_rate_of_a_module_at_the_top_is_named_without_a_dot() -> None:
    assert dropout_rates(nn.Dropout(0.25)) == {"p": 0.25}
    assert dropout_rates(nn.Sequential(nn.Linear(2, 2), nn.Dropout1d(0.5))) == {"1.p": 0.5}

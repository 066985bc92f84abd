"""The head found in a model against the logits of the model's own forward."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from orpo.engine.head import token_logps
from orpo.engine.head_of import CAPPED, DIVIDED, MULTIPLIED, CannotFuseHead, head_of

# PEFT 0.21 reads an attribute that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2: dict[str, Any] = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
OPT = {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 16}
MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "cohere": {**SMALL, "logit_scale": 0.25},
    "cohere2": {**SMALL, "logit_scale": 3.0},
    "hyperclovax": {**SMALL, "logits_scaling": 4.0},
    "granite": {**SMALL, "logits_scaling": 4.0},
    "granitemoe": {**SMALL, "logits_scaling": 0.5, "num_local_experts": 2, "num_experts_per_tok": 1},
    "granitemoeshared": {**SMALL, "logits_scaling": 4.0, "num_local_experts": 2, "num_experts_per_tok": 1, "shared_intermediate_size": 16},
    "minicpm3": {**SMALL, **MLA, "num_key_value_heads": 4, "dim_model_base": 8},
    "gemma2": {**SMALL, "final_logit_softcapping": 2.0},
    "gemma3_text": {**SMALL, "final_logit_softcapping": 2.0},
    "vaultgemma": {**SMALL, "final_logit_softcapping": 2.0},
    "nanochat": {**SMALL, "final_logit_softcapping": 2.0},
    "recurrent_gemma": {**SMALL, "logits_soft_cap": 2.0, "lru_width": 32, "attention_window_size": 16, "block_types": ["attention"]},
    "falcon_h1": {**SMALL, "lm_head_multiplier": 0.3, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    "llama": SMALL,
    "qwen3": SMALL,
    "phi": {**SMALL, "num_key_value_heads": 4},
    "gpt2": GPT2,
    "opt": OPT,
    "gpt_neox": SMALL,
}


def model_of(kind: str, **changes: Any) -> nn.Module:
    """A tiny model whose logits are large enough for a wrong scale or cap to show, with norms and biases off their neutral values."""
    torch.manual_seed(0)
    model: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**FAMILIES.get(kind, SMALL), **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def own_logps(model: Any, ids: Tensor) -> Tensor:
    logps = model(input_ids=ids[None]).logits[0, :-1].float().log_softmax(-1)
    return logps.gather(1, ids[1:, None]).squeeze(1)


def fused_logps(model: Any, causal_lm: Any, ids: Tensor) -> Tensor:
    hidden = causal_lm.base_model(input_ids=ids[None]).last_hidden_state[0, :-1]
    return token_logps(hidden, head_of(causal_lm), ids[1:], chunk_bytes=5 * 96 * 4)


def assert_same(model: nn.Module, causal_lm: nn.Module) -> None:
    """Log-probs and the gradients of all trained parameters are those of the model's own forward."""
    ids = torch.arange(3, 20) * 5 % 96
    found = []
    for logps_of in (lambda: own_logps(model, ids), lambda: fused_logps(model, causal_lm, ids)):
        model.zero_grad(set_to_none=True)
        logps = logps_of()
        (logps * torch.linspace(-1, 1, len(logps))).sum().backward()
        grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        found.append((logps.detach(), grads))
    (own, own_grads), (fused, fused_grads) = found
    assert (own - fused).abs().max() <= 1e-5
    assert own_grads.keys() == fused_grads.keys() != set()
    for name, grad in own_grads.items():
        assert (grad - fused_grads[name]).abs().max() <= 1e-5 * max(1.0, float(grad.abs().max())), name


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("trained", ["all", "body"])
def test_the_fused_head_gives_the_models_own_log_probs_and_gradients(kind: str, trained: str) -> None:
    model: Any = model_of(kind, **({"tie_word_embeddings": False} if trained == "body" else {}))
    if trained == "body":
        model.get_output_embeddings().requires_grad_(False)
    assert_same(model, model)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_tied_weights_gather_the_gradients_of_both_uses(kind: str) -> None:
    model: Any = model_of(kind, tie_word_embeddings=True)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert_same(model, model)


def test_a_soft_cap_of_none_is_no_soft_cap() -> None:
    model = model_of("gemma2", final_logit_softcapping=None)
    assert head_of(model).softcap is None
    assert_same(model, model)


def adapted(kind: str = "llama", changes: dict[str, Any] | None = None, **lora: Any) -> tuple[nn.Module, nn.Module]:
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 12, "target_modules": ["q_proj", "lm_head"], **lora})
    model: Any = peft.get_peft_model(model_of(kind, **(changes or {"tie_word_embeddings": False})), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval(), model.get_base_model()


def test_lora_on_the_head_is_a_low_rank_change_and_its_frozen_weight_gets_no_gradient() -> None:
    model, causal_lm = adapted()
    assert_same(model, causal_lm)
    head = head_of(causal_lm)
    assert head.low_rank is not None
    assert not head.weight.requires_grad


def test_lora_with_a_bias_and_rank_stabilised_scaling_is_followed() -> None:
    model, causal_lm = adapted("phi", {"num_key_value_heads": 4, "tie_word_embeddings": False}, lora_bias=True, use_rslora=True)
    assert_same(model, causal_lm)


def test_two_active_adapters_are_summed() -> None:
    model, causal_lm = adapted()
    model.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=1, target_modules=["lm_head"], init_lora_weights=False))
    model.base_model.set_adapter(["default", "second"])
    assert_same(model, causal_lm)


def test_disabled_and_merged_adapters_are_followed() -> None:
    model, causal_lm = adapted()
    ids = torch.arange(3, 20)
    with model.disable_adapter(), torch.no_grad():
        assert head_of(causal_lm).low_rank is None
        torch.testing.assert_close(fused_logps(model, causal_lm, ids), own_logps(model, ids), rtol=0, atol=1e-5)
    model.merge_adapter()
    with torch.no_grad():
        assert head_of(causal_lm).low_rank is None
        torch.testing.assert_close(fused_logps(model, causal_lm, ids), own_logps(model, ids), rtol=0, atol=1e-5)


def test_a_head_in_modules_to_save_is_the_trained_copy() -> None:
    model, causal_lm = adapted(target_modules=["q_proj"], modules_to_save=["lm_head"])
    assert head_of(causal_lm).weight.requires_grad
    assert_same(model, causal_lm)
    with model.disable_adapter():
        assert not head_of(causal_lm).weight.requires_grad


def test_trainable_tokens_of_tied_embeddings_reach_the_head() -> None:
    model, causal_lm = adapted(changes={"tie_word_embeddings": True}, target_modules=["q_proj"], trainable_token_indices=[3, 8, 13])
    assert_same(model, causal_lm)
    assert head_of(causal_lm).weight.grad_fn is not None


@pytest.mark.parametrize(
    ("lora", "reason"),
    [({"lora_dropout": 0.1}, "LoRA has dropout"), ({"use_dora": True}, "not plain LoRA")],
)
def test_adapters_that_are_no_low_rank_change_are_refused(lora: dict[str, Any], reason: str) -> None:
    _, causal_lm = adapted(**lora)
    with pytest.raises(CannotFuseHead, match=reason):
        head_of(causal_lm)


def test_another_kind_of_adapter_on_the_head_is_refused() -> None:
    model: Any = peft.get_peft_model(
        model_of("llama", tie_word_embeddings=False), peft.IA3Config(target_modules=["lm_head"], feedforward_modules=[])
    )
    with pytest.raises(CannotFuseHead, match="peft's Linear, not a plain linear layer"):
        head_of(model.get_base_model())


class Eighth(nn.Linear):
    """A linear layer that does more, as quantised ones do."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) / 8


def test_a_linear_layer_with_its_own_forward_is_refused() -> None:
    model: Any = model_of("llama")
    model.lm_head = Eighth(32, 96, bias=False)
    with pytest.raises(CannotFuseHead, match=r"Eighth of torch\.float32, not a plain linear layer"):
        head_of(model)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_a_quantised_weight_is_refused(dtype: torch.dtype) -> None:
    model: Any = model_of("llama")
    model.lm_head.weight = nn.Parameter(torch.zeros(96, 32).to(dtype), requires_grad=False)
    with pytest.raises(CannotFuseHead, match="not a plain linear layer"):
        head_of(model)


def test_a_head_that_is_hooked_or_not_in_memory_is_refused() -> None:
    model: Any = model_of("llama")
    handle = model.lm_head.register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(CannotFuseHead, match="hook"):
        head_of(model)
    handle.remove()
    model.lm_head.to("meta")
    with pytest.raises(CannotFuseHead, match="on meta"):
        head_of(model)


def test_an_unknown_type_that_sets_a_known_factor_or_cap_is_refused() -> None:
    for name, value in (("logit_scale", 0.5), ("final_logit_softcapping", 30.0), ("unpadded_vocab_size", 90)):
        model: Any = model_of("llama")
        head_of(model)
        setattr(model.config, name, value)
        with pytest.raises(CannotFuseHead, match=f"llama sets {name}={value}"):
            head_of(model)


def test_a_model_with_its_own_forward_is_refused() -> None:
    class Doubled(transformers.LlamaForCausalLM):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            result = super().forward(*args, **kwargs)
            result.logits = result.logits * 2
            return result

    with pytest.raises(CannotFuseHead, match="Doubled brings its own forward"):
        head_of(Doubled(AutoConfig.for_model("llama", **SMALL)))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("electra", {"embedding_size": 16, "is_decoder": True}), ("bert", {"is_decoder": True}), ("roberta", {"is_decoder": True})],
)
def test_a_head_of_more_than_one_layer_is_refused(kind: str, changes: dict[str, Any]) -> None:
    with pytest.raises(CannotFuseHead, match=r"larger head|does not read the base model's output"):
        head_of(model_of(kind, **changes))


def test_the_tables_name_attributes_that_the_configs_have() -> None:
    listed = {**MULTIPLIED, **DIVIDED, **CAPPED}
    assert len(listed) == len(MULTIPLIED) + len(DIVIDED) + len(CAPPED)
    for kind, name in listed.items():
        assert hasattr(AutoConfig.for_model(kind).get_text_config(), name), kind

"""What tests of families of models share: a tiny random model of each, and the comparison with single rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from orpo.core.logps import PairLogps
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.dropout import disable_dropout
from orpo.engine.model import LogpsModel
from orpo.engine.paths import Path
from orpo.engine.plain import pair_logps
from orpo.engine.startup_check import largest_difference

SHARING = "llama mistral qwen2 qwen3 gemma gemma2 gemma3_text cohere granite phi3 olmo opt gpt2 gpt_neox".split()
"""The families for which sharing is proved in every detail."""

TOLERANCE = 1e-5
LONGEST = 200
"""Tokens of the longest row that the check is told of."""

WINDOW = 16
"""Every sliding window, chunk of attention, and block: shorter than the tests' rows."""


def _each(value: object, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


SIZES: dict[str, Any] = {
    **_each(128, "vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size"),
    **_each(256, "max_position_embeddings n_positions n_ctx max_seq_len model_max_length context_length original_max_position_embeddings"),
    **_each(32, "hidden_size d_model n_embd emb_dim embedding_dim word_embed_proj_dim embedding_size attention_hidden_size lru_width"),
    **_each(32, "input_embedding_size output_embedding_size rel_extent mamba_headdim"),
    **_each(2, "num_hidden_layers n_layer n_layers num_layers num_blocks decoder_layers encoder_layers"),
    **_each(4, "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads encoder_attention_heads"),
    **_each(4, "swa_num_attention_heads rotary_dim d_rel qk_rope_head_dim qk_nope_head_dim gated_norm_rank prompt_length"),
    **_each(2, "num_key_value_heads num_kv_heads swa_num_key_value_heads n_mamba_heads index_n_heads index_topk_blocks num_query_groups"),
    **_each(8, "head_dim swa_head_dim d_head dim_head kv_channels v_head_dim qk_head_dim index_head_dim query_pre_attn_scalar"),
    **_each(
        48, "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dim_ff dff n_inner d_inner intermediate_size_mlp"
    ),
    **_each(48, "dense_intermediate_size shared_intermediate_size"),
    **_each(24, "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size expert_ffn_hidden_size"),
    **_each(24, "moe_shared_expert_intermediate_size"),
    **_each(4, "num_experts n_routed_experts num_local_experts moe_num_experts linear_num_value_heads linear_num_heads"),
    **_each(2, "num_experts_per_tok num_experts_per_token moe_k moe_topk zero_expert_num linear_num_key_heads o_groups"),
    **_each(1, "n_group num_expert_group topk_group n_groups mamba_n_groups max_window_layers num_layers_per_stack"),
    **_each(16, "kv_lora_rank q_lora_rank router_hidden_size attention_head_dim dim_model_base floor_scale log_scaling_n_floor"),
    **_each(WINDOW, "sliding_window sliding_window_size window_size attention_window_size local_attention attention_chunk_size"),
    **_each(WINDOW, "keep_window_size block_size chunk_size mamba_chunk_size local_attn_chunk_length lsh_attn_chunk_length"),
    **_each(8, "linear_key_head_dim linear_value_head_dim linear_head_dim mamba_d_state mamba_n_heads mamba_d_head mamba_dt_rank"),
    **_each(8, "state_size time_step_rank ssm_state_size mamba_num_heads mamba_head_dim hidden_size_per_layer_input laurel_rank"),
    **_each(8, "index_topk index_block_size adapter_rank o_lora_rank hc_lowrank"),
    "mamba_d_ssm": 64,
    "num_kv_shared_layers": 0,
    "conv_L_cache": 3,
    "pad_token_id": 0,
    **_each(1, "bos_token_id cls_token_id decoder_start_token_id"),
    "eos_token_id": 2,
    "sep_token_id": 3,
}
"""Attributes of configs and their size here. Each is set where the family's config has it."""

PER_LAYER = ("mlp_layer_types", "no_rope_layers", "layer_rope_theta", "num_attention_heads_per_layer", "indexer_types")
"""Lists with one entry per layer, beside the layers' own kinds."""

WINDOWED = {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
LATENT = {"num_key_value_heads": 4, "head_dim": 4}
"""Multi-head latent attention has a key head for every query head."""

_TEXT = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
_TEXT |= {"intermediate_size": 48, "max_position_embeddings": 256, "sliding_window": WINDOW, "query_pre_attn_scalar": 8}
_EYE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}

_ROPE = {kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("sliding_attention", "full_attention")}

SPECIAL: dict[str, dict[str, Any]] = {
    "axk1": LATENT,
    "axk2": {"num_key_value_heads": 4},
    "cohere_compass_text": {**WINDOWED, "rope_parameters": _ROPE},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4},
    },
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2, "topk_group": 1, "n_group": 1, "first_k_dense_replace": 1},
    "deepseek_v3": {**LATENT, "first_k_dense_replace": 1},
    "deepseek_v32": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "dots1": {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "n_shared_experts": 1, **WINDOWED},
    "gemma3": {
        "text_config": {**_TEXT, "layer_types": ["sliding_attention", "full_attention"]},
        "vision_config": _EYE,
        "mm_tokens_per_image": 4,
        **{f"{name}_token_index": 127 for name in ("image", "boi", "eoi")},
    },
    "gemma3n_text": {"intermediate_size": [48, 48]},
    "glm4_moe_lite": {"num_key_value_heads": 4},
    "glm_moe_dsa": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "bailing_hybrid": {"num_key_value_heads": 4},
    "bamba": {"attn_layer_indices": [1]},
    "kimi_linear": {"num_key_value_heads": 4},
    "laguna": {**WINDOWED, "rope_parameters": _ROPE},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": LATENT,
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "mellum": {**WINDOWED, "rope_parameters": _ROPE},
    "minimax_m3_vl_text": {"layer_types": ["full_attention", "minimax_m3_sparse"]},
    "ministral": {"head_dim": 8, **WINDOWED},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "prophetnet": {"num_encoder_layers": 1, "num_decoder_layers": 1},
    "qwen2": WINDOWED,
    "qwen2_moe": WINDOWED,
    "qwen3": WINDOWED,
    "qwen3_moe": WINDOWED,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"is_decoder": True, "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [8, 24], "attention_head_size": 8},
    "roc_bert": {f"{part}_embed_dim": 8 for part in ("shape", "pronunciation")} | {"shape_vocab_size": 32, "pronunciation_vocab_size": 32},
    "smollm3": WINDOWED,
    "xmod": {"default_language": "en_XX"},
    "youtu": LATENT,
    "zamba": {"layer_types": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3, "attention_hidden_size": 64},
    "zaya": {"num_experts_per_tok": 1},
}
"""What a family needs beside SIZES: sizes under names or in relations of its own, and windows that are off by default."""

NOT_TRIED = {
    "gemma4_assistant": "drafts for another model; it is not trained by itself",
    "gemma4_unified_assistant": "drafts for another model; it is not trained by itself",
    "qwen4_exp_text": "no tiny config was found that it runs with",
    "zamba2": "no tiny config was found that it runs with",
    "blt": "bytes and patches of three models in one; no tiny config was written",
    **dict.fromkeys(
        "dots3_note emu3 fuyu gemma3n gemma4 gemma4_unified git got_ocr2 llama4 mllama moshi".split()
        + "moss_transcribe_diarize phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp".split(),
        "text with images or sound; no tiny config of all its parts was written",
    ),
}
"""Families without a tiny model here, and why."""


def all_families() -> list[str]:
    """The names under which transformers knows a causal language model."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(family: str, **changes: object) -> Any:
    """The config of a tiny model of `family`, with `changes`."""
    default = _default(family)
    kinds = _kinds_of_layers(default)
    given = {name: value for name, value in SIZES.items() if _takes_number(default, name)}
    if hasattr(default, "sliding_window"):
        given["sliding_window"] = WINDOW
    if kinds:
        given |= {"layer_types": kinds, "num_hidden_layers": len(kinds)}
    for name in PER_LAYER:
        entries = vars(default).get(name)
        if isinstance(entries, list | tuple) and entries:
            distinct = list(dict.fromkeys(entries)) if name != "num_attention_heads_per_layer" else [4]
            given[name] = (distinct * 4)[: len(kinds) or 2]
    config: Any = CONFIG_MAPPING[family]
    return config(**{**given, **SPECIAL.get(family, {}), **changes})


def tiny_model(family: str, *, seed: int = 0, **changes: object) -> Any:
    """A random model of `family` in fp32 and evaluation mode without dropout, with `changes` to its config."""
    config = tiny_config(family, **changes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    spread(model, seed=seed)
    disable_dropout(model)
    return model


def spread(model: nn.Module, *, seed: int, gain: float = 1.5) -> None:
    """Nothing; every matrix gets weights so large that what a token attends to matters, every vector a little noise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if any(part in name for part in ("A_log", "dt_", "time_", "recurrent_param")):
                continue  # rates of decay: noise would make them explode
            if parameter.ndim < 2:
                parameter += 0.1 * noise
            else:
                parameter.copy_(gain * noise / parameter.shape[-1] ** 0.5)


@cache
def _default(family: str) -> Any:
    return CONFIG_MAPPING[family]()


def _kinds_of_layers(default: Any) -> list[str]:
    """Each kind of layer that the family has, once, and at least two layers; nothing where layers are all of a kind."""
    kinds = vars(default).get(_own_name(default, "layer_types"))
    distinct = list(dict.fromkeys(kinds or []))
    return (distinct * 2)[: max(2, len(distinct))]


def _takes_number(default: Any, name: str) -> bool:
    value = vars(default).get(_own_name(default, name))
    return isinstance(value, int) and not isinstance(value, bool)


def _own_name(default: Any, name: str) -> str:
    return str(type(default).attribute_map.get(name, name))


def drawn(prompt: int, chosen: int, rejected: int, *, common: int = 0, seed: int = 0) -> TokenizedExample:
    """A random pair with these lengths; the answers begin with the same `common` tokens."""
    generator = np.random.default_rng([seed, prompt, chosen, rejected])
    first, *answers = (generator.integers(3, 128, size=length, dtype=np.int32) for length in (prompt, chosen, rejected))
    answers[1][:common] = answers[0][:common]
    return TokenizedExample(first, tuple(answers), Source("pairs.jsonl", 1))


PAIRS = [
    drawn(2 * WINDOW + 3, 9, 6),  # prompt longer than the window
    drawn(1, 4, 7),
    drawn(5, 2 * WINDOW, WINDOW + 4, common=2),  # answers longer than the window
    drawn(WINDOW - 1, 3, 1),
]


def weighed(logps: PairLogps) -> Tensor:
    """A scalar in which every sum of every pair has a weight of its own."""
    assert logps.prompt is not None
    sums = torch.stack([logps.chosen.total, logps.rejected.total, logps.prompt.total])
    return (sums * torch.linspace(-1.0, 0.7, sums.numel(), dtype=sums.dtype).view_as(sums)).sum()


def with_gradients(body: nn.Module, compute: Callable[[], PairLogps]) -> tuple[PairLogps, dict[str, Tensor]]:
    body.zero_grad(set_to_none=True)
    logps = compute()
    weighed(logps).backward()
    gradients = {name: p.grad.clone() for name, p in body.named_parameters() if p.requires_grad and p.grad is not None}
    return logps, gradients


def assert_equals_plain(body: Any, path: Path, pairs: Sequence[TokenizedExample] = PAIRS) -> None:
    """Log-probs and the gradient of every parameter are those of single rows through the model's own forward."""
    oracle, expected = with_gradients(body, lambda: pair_logps(body, pairs))
    engine = LogpsModel(body, path=path)
    try:
        found, gradients = with_gradients(body, lambda: engine(pairs))
    finally:
        engine.release()
    assert largest_difference(found, oracle) <= TOLERANCE
    assert gradients.keys() == expected.keys()
    assert gradients, "something is trained"
    whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        # The gradient of a key's bias is 0 but for rounding: it is measured against the whole gradient's rounding.
        allowed = TOLERANCE * max(float(gradient.norm()), 1e-2 * float(whole))
        assert float((gradients[name] - gradient).norm()) <= allowed, name

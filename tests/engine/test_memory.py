"""What a step needs is counted on fake tensors; the oracle is the same count on a real model, and sizes worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig, MixtralConfig

from orpo.engine import memory, memory_free
from orpo.engine.attention import LAYOUT
from orpo.engine.body import switch_to_packs
from orpo.engine.layout import Layout, PackedExample
from orpo.engine.memory import MemoryModel, Surroundings, memory_model
from orpo.engine.memory_sharded import gathered_bytes
from orpo.engine.memory_trace import model_sizes, traced_step
from orpo.engine.remade import Hooks, Remade
from orpo.engine.shared_casts import SharedCasts

# peft 0.21 reads an attribute that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

LAYERS, HIDDEN, WIDE, VOCABULARY = 2, 32, 48, 96
KEYS = HIDDEN // 2
LAYER = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * WIDE + 2 * HIDDEN
NUM = VOCABULARY * HIDDEN + LAYERS * LAYER + HIDDEN


def tiny(*, tied: bool = True, layers: int = LAYERS) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=WIDE,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        tie_word_embeddings=tied,
    )


def builder(config: Any, *, lora: bool = False, dtype: torch.dtype = torch.float32) -> Callable[[bool], Any]:
    def build(checkpointing: bool) -> Any:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if lora:
            import peft

            model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        return model

    return build


@cache  # a trace depends on nothing else
def traced(dtype: torch.dtype, *, lora: bool, layers: int) -> MemoryModel:
    build = builder(tiny(layers=layers), lora=lora, dtype=dtype if lora else torch.float32)
    return memory_model(build, Surroundings(dtype, "adamw_torch_fused"), row_length=16)


def modelled(dtype: torch.dtype = torch.float32, *, lora: bool = False, layers: int = LAYERS, **around: Any) -> MemoryModel:
    settings = {"optimizer": "adamw_torch_fused", **around}
    return replace(traced(dtype, lora=lora, layers=layers), around=Surroundings(dtype, **settings))


def packed_rows(model: torch.nn.Module, rows: int, row_length: int) -> torch.Tensor:
    """Hidden states of `rows` rows side by side in one pack, as the engine computes them."""
    layout = Layout(tuple(PackedExample(row * row_length, 0, (row_length,)) for row in range(rows)))
    switch_to_packs(model)
    ids = torch.zeros(1, rows * row_length, dtype=torch.long)
    return model.base_model(input_ids=ids, use_cache=False, **{LAYOUT: layout}).last_hidden_state


def kept_by_hooks(*, checkpointing: bool, dtype: torch.dtype, rows: int, row_length: int) -> int:
    """Bytes of distinct storages that backward keeps of a real forward pass, weights apart, and the hidden states themselves."""
    model = builder(tiny())(checkpointing)
    model.train()
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def count(tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage

    hooks = Hooks()

    def keep(tensor: torch.Tensor) -> torch.Tensor | Remade:
        packed = hooks.pack(tensor)
        for part in packed.inputs if isinstance(packed, Remade) else (packed,):
            count(part)
        return packed

    casts = SharedCasts()
    casts.attach(model.base_model)
    with torch.autograd.graph.saved_tensors_hooks(keep, hooks.unpack), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = packed_rows(model, rows, row_length)
    count(out)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_the_forward_pass_keeps_is_what_hooks_see_in_a_real_one(dtype: torch.dtype) -> None:
    trace = traced_step(lambda: builder(tiny())(False), rows=4, row_length=64, dtype=dtype, device="cpu")
    seen = kept_by_hooks(checkpointing=False, dtype=dtype, rows=4, row_length=64)
    assert trace.kept == pytest.approx(seen, rel=0.03)


def test_with_checkpointing_only_what_lies_between_layers_is_kept() -> None:
    trace = traced_step(lambda: builder(tiny())(True), rows=4, row_length=64, dtype=torch.float32, device="cpu")
    seen = kept_by_hooks(checkpointing=True, dtype=torch.float32, rows=4, row_length=64)
    assert trace.kept == pytest.approx(seen, rel=0.03)
    number = 4 * 64 * HIDDEN * 4
    assert trace.kept == pytest.approx((LAYERS + 2) * number, rel=0.1), "the embeddings, what each layer gives, and the last norm"
    assert trace.backward > trace.kept + 5 * number, "one layer is computed again in the backward pass"


def test_sizes_are_those_counted_by_hand() -> None:
    sizes = model_sizes(lambda: builder(tiny())(False))
    assert (sizes.num_parameters, sizes.num_trained, sizes.trained_bytes) == (NUM, NUM, 4 * NUM)
    assert sizes.largest_trained == VOCABULARY * HIDDEN
    assert (sizes.vocabulary, sizes.hidden, sizes.num_layers, sizes.head_is_trained) == (VOCABULARY, HIDDEN, LAYERS, True)
    assert model_sizes(lambda: builder(tiny(tied=False))(False)).num_parameters == NUM + VOCABULARY * HIDDEN


def test_adapters_are_trained_in_fp32_and_the_base_lies_in_the_dtype_of_products() -> None:
    sizes = model_sizes(lambda: builder(tiny(), lora=True, dtype=torch.bfloat16)(False))
    inputs_and_outputs = 4 * HIDDEN + 2 * (HIDDEN + KEYS) + 3 * (HIDDEN + WIDE)
    num = 4 * LAYERS * inputs_and_outputs
    assert (sizes.num_trained, sizes.trained_bytes) == (num, 4 * num)
    assert sizes.frozen_bytes == pytest.approx(2 * NUM, abs=256), "rotary frequencies beside the weights"
    assert not sizes.head_is_trained


@pytest.mark.parametrize(
    ("optimizer", "expected"), [("adamw_torch_fused", 8 * NUM), ("adamw_torch", 8 * NUM), ("rmsprop", 4 * NUM), ("sgd", 0)]
)
def test_weights_gradients_and_optimizer_are_those_counted_by_hand(optimizer: str, expected: int) -> None:
    need = modelled(optimizer=optimizer).need(4096, checkpointing=False)
    assert need.weights == pytest.approx(4 * NUM, abs=256)
    assert (need.gradients, need.optimizer) == (4 * NUM, expected)
    assert need.peak_bytes == sum(need.parts.values())


def test_a_frozen_copy_is_counted_in_the_dtype_of_products() -> None:
    alone = modelled().need(4096, checkpointing=False)
    for dtype, itemsize in ((torch.float32, 4), (torch.bfloat16, 2)):
        beside = modelled(dtype=dtype, keeps_copy=True).need(4096, checkpointing=False)
        assert beside.weights - alone.weights == itemsize * NUM


def test_adafactor_keeps_one_number_per_row_and_column() -> None:
    norms = (2 * LAYERS + 1) * HIDDEN
    layer = 4 * HIDDEN + 2 * (HIDDEN + KEYS) + 3 * (HIDDEN + WIDE)
    expected = 4 * (VOCABULARY + HIDDEN + LAYERS * layer + norms)
    assert modelled(optimizer="adafactor").need(64, checkpointing=False).optimizer == expected


def test_gradients_count_before_a_micro_batch_only_where_a_step_has_several() -> None:
    model = modelled()
    one, several = (model.need(8192, checkpointing=False, accumulates=several) for several in (False, True))
    assert one.gradients < 4 * NUM
    assert several.gradients == 4 * NUM
    assert 0 < several.peak_bytes - one.peak_bytes <= 4 * NUM


def test_the_head_holds_a_chunk_and_never_the_logits_of_all_tokens() -> None:
    chunk = 4 * VOCABULARY * 100
    model = modelled(chunk_bytes=chunk)
    tokens = 2000
    rows = 2 * 4 * tokens * HIDDEN
    assert memory.head_bytes(model.sizes, model.around, tokens) == chunk + rows
    assert memory.head_bytes(model.sizes, modelled(torch.bfloat16, chunk_bytes=chunk).around, tokens) == (
        chunk // 2 + rows + 2 * VOCABULARY * HIDDEN
    )


def test_another_rank_costs_a_second_copy_of_the_gradients() -> None:
    alone, several = (modelled(num_ranks=num).need(4096, checkpointing=False) for num in (1, 2))
    assert several.peak_bytes - alone.peak_bytes == 4 * NUM


def test_ranks_that_divide_weights_hold_their_part_and_what_is_gathered() -> None:
    sizes = replace(modelled().sizes, frozen_bytes=0, trained_bytes=400_000, vocabulary=100, hidden=50, num_layers=18)
    # Embeddings and head, 2 x 100 x 50 numbers; two layers of 18 in what is left, 360 kB; and as much again for their gradients.
    assert gathered_bytes(sizes) == 2 * (40_000 + 40_000)
    step = replace(modelled(num_ranks=4, is_sharded=True), sizes=sizes).need(5000, checkpointing=False)
    assert (step.weights, step.optimizer) == (100_000 + 160_000, 200_000)
    assert replace(modelled(num_ranks=4), sizes=sizes).need(5000, checkpointing=False).optimizer == 800_000


def test_weights_are_whole_on_every_rank_before_they_are_divided() -> None:
    sizes = replace(modelled().sizes, frozen_bytes=2**40, num_layers=1000)
    need = replace(modelled(num_ranks=64, is_sharded=True), sizes=sizes).need(1, checkpointing=False)
    assert (need.moment, need.weights) == ("start", 2**40 + 4 * NUM)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_more_tokens_never_need_less(lora: bool, checkpointing: bool) -> None:
    model = modelled(torch.bfloat16, lora=lora)
    needs = [
        model.need(tokens, checkpointing=checkpointing).peak_bytes for tokens in (1, 8, 16, 17, 64, 100, 500, 1024, 1025, 5000, 50_000)
    ]
    assert needs == sorted(needs)


def test_between_its_points_a_curve_is_what_a_step_of_that_size_needs() -> None:
    model = modelled()
    for rows in (3, 30, 200):
        exact = traced_step(lambda: builder(tiny())(False), rows=rows, row_length=16, dtype=torch.float32, device="cpu")
        drawn = memory.trace_at(model.traces(False), rows * 16)
        assert drawn.kept == pytest.approx(exact.kept, rel=0.02)
        assert drawn.backward == pytest.approx(exact.backward, rel=0.05)


def test_checkpointing_needs_less() -> None:
    model = modelled(layers=6)
    assert model.need(4096, checkpointing=True).activations < 0.5 * model.need(4096, checkpointing=False).activations


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_tokens_that_fit_are_the_most_whose_need_is_within_the_bytes(checkpointing: bool) -> None:
    model = modelled()
    free = model.need(3000, checkpointing=checkpointing).new_bytes + 7
    tokens = model.tokens_that_fit(free, checkpointing=checkpointing)
    assert tokens >= 3000
    assert model.need(tokens, checkpointing=checkpointing).new_bytes <= free
    assert model.need(tokens + 1, checkpointing=checkpointing).new_bytes > free
    assert model.tokens_that_fit(free, checkpointing=checkpointing, at_most=100) == 100
    assert model.tokens_that_fit(1000, checkpointing=checkpointing) == 0


def test_what_is_left_to_auto_is_chosen_to_fit_and_what_is_given_stays() -> None:
    model = modelled(layers=6)
    plenty = 2**40
    choose = memory.chosen_setting
    assert choose(model, plenty, longest=100, at_most=8192, budget=None, checkpointing=None) == memory.Setting(8192, False, fits=True)
    assert choose(model, plenty, longest=9000, at_most=8192, budget=None, checkpointing=None).tokens == 9000
    tight = int(model.need(5000, checkpointing=False).new_bytes / memory.SHARE_OF_FREE["cpu"])
    some = choose(model, tight, longest=100, at_most=8192, budget=None, checkpointing=None)
    assert 4900 <= some.tokens <= 5100
    assert not some.checkpointing
    whole = choose(model, tight, longest=5300, at_most=8192, budget=None, checkpointing=None)
    assert (whole.checkpointing, whole.fits) == (True, True)
    assert choose(model, tight, longest=5300, at_most=8192, budget=None, checkpointing=False) == memory.Setting(5300, False, fits=False)
    assert choose(model, tight, longest=100, at_most=8192, budget=5300, checkpointing=None) == memory.Setting(5300, True, fits=True)


def test_a_model_that_loops_over_positions_is_estimated_and_says_so() -> None:
    config = MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=96, state_size=4)
    model = memory_model(builder(config), Surroundings(torch.float32, "sgd"), row_length=64)
    assert model.traces(False)[0].estimated == "the model works through its positions one by one"
    assert model.traces(False)[0].kept == 64 * 32 * 4 * 2 * 34
    assert modelled().traces(False)[0].estimated == ""


def test_a_model_that_cannot_be_counted_is_estimated_in_words_and_no_traceback_is_printed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
        num_local_experts=4,
    )
    model = memory_model(builder(config), Surroundings(torch.float32, "sgd"), row_length=16)
    assert model.traces(False)[0].estimated == "this model cannot be counted exactly"
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


def test_a_container_that_is_full_leaves_nothing_and_one_without_a_limit_leaves_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("1200\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 150\n")
    assert memory_free._container_free(tmp_path) == 0
    monkeypatch.setattr(memory_free, "_container_free", lambda folder: 0)
    assert memory_free.free_bytes("cpu") == 0
    monkeypatch.setattr(memory_free, "_container_free", lambda folder: None)
    assert memory_free.free_bytes("cpu") > 2**20


def test_processes_on_one_machine_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_free, "_container_free", lambda folder: 1001)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_free.free_bytes("cpu") == 250

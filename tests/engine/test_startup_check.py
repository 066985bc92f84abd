"""The start-up check refuses what would give other numbers, says so, and leaves everything as it found it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from families import LONGEST, PAIRS, SHARING, WINDOW, assert_equals_plain, tiny_model

from orpo.engine import attention, model
from orpo.engine.attention import LAYOUT
from orpo.engine.layout import Layout, PackedBatch, PackedExample
from orpo.engine.model import LogpsModel
from orpo.engine.paths import Choice, Path
from orpo.engine.startup_check import check_pairs, choose_path
from orpo.errors import ConfigError

# PEFT 0.21 asks transformers 5.23 by the older of two names.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def _own_tables() -> Iterator[None]:
    """Nothing of a broken attention stays in transformers' table."""
    yield
    attention.register()


def cut_off(own: Any) -> Any:
    """The rejected branch no longer sees its prompt: what stock attention does with positions that step back."""

    def broken(*args: Any, **kwargs: Any) -> Any:
        layout = kwargs[LAYOUT]
        apart = [PackedExample(e.start, 0, (e.prefix + e.branches[0], *e.branches[1:])) for e in layout.examples]
        return own(*args, **{**kwargs, LAYOUT: Layout(tuple(apart), layout.cache)})

    return broken


def wide_window(own: Any) -> Any:
    """The window counts a token too many: flash attention's counting, taken for transformers'."""
    return lambda *args, **kwargs: own(*args, **{**kwargs, "sliding_window": kwargs["sliding_window"] + 1})


def restarted(own: Any) -> Any:
    """The second branch counts its positions from 0."""

    def broken(examples: Any, *, sharing: bool, **kwargs: Any) -> PackedBatch:
        batch = own(examples, sharing=sharing, **kwargs)
        positions = batch.position_ids.clone()
        for example in batch.layout.examples if sharing else ():
            start, length = example.branch_starts[1], example.branches[1]
            positions[0, start : start + length] -= example.prefix
        return replace(batch, position_ids=positions)

    return broken


BROKEN = {
    "cut off": (cut_off, attention, "packed_attention", Path.PACKED),
    "window": (wide_window, attention, "packed_attention", Path.PADDED),
    "positions": (restarted, model, "pack", Path.PACKED),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_attention_is_refused_and_what_is_taken_instead_is_right(
    fault: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = tiny_model("mistral").to(dtype)
    assert choose_path(body, longest=LONGEST) == Choice(Path.SHARED)
    broken, module, name, instead = BROKEN[fault]
    monkeypatch.setattr(module, name, broken(getattr(module, name)))
    choice = choose_path(body, longest=LONGEST)
    assert choice.path is instead
    assert all("mean log-probs differ by" in reason for _, reason in choice.refused)
    assert choice.refused
    if dtype == torch.float32:
        assert_equals_plain(body, choice.path)


@pytest.mark.parametrize("longest", [WINDOW, WINDOW + 1])
def test_the_check_looks_past_the_window_where_the_data_do(longest: int) -> None:
    pairs = check_pairs(tiny_model("mistral"), longest=longest)
    assert (len(pairs[0].prompt_ids) > WINDOW) == (longest > WINDOW)


def test_rope_that_changes_with_the_longest_row_of_a_batch_mixes_no_rows_where_the_data_are_that_long() -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 64}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    body = tiny_model("phi3", rope_parameters=rope, original_max_position_embeddings=64)
    assert choose_path(body, longest=64) == Choice(Path.SHARED)
    choice = choose_path(body, longest=65)
    assert choice.path is Path.PLAIN
    assert all("mean log-probs differ by" in reason for _, reason in choice.refused)


@pytest.mark.parametrize("family", ["gpt2", "reformer", "mistral"])
def test_the_check_leaves_modes_attention_and_random_states_as_they_were(family: str) -> None:
    body = tiny_model(family).train()
    still = next(module for module in body.modules() if not list(module.children()))
    still.eval()
    before = [module.training for module in body.modules()]
    implementation = body.config._attn_implementation
    weights = {name: parameter.clone() for name, parameter in body.named_parameters()}
    drawn_before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    choose_path(body, longest=LONGEST)
    assert [module.training for module in body.modules()] == before
    assert body.config._attn_implementation == implementation
    assert torch.equal(torch.get_rng_state(), drawn_before[0])
    assert np.array_equal(np.random.get_state()[1], drawn_before[1])
    assert random.getstate() == drawn_before[2]
    assert all(torch.equal(parameter, weights[name]) for name, parameter in body.named_parameters())


def test_dropout_outside_attention_refuses_sharing_alone() -> None:
    body = tiny_model("opt")
    body.model.decoder.layers[1].dropout = 0.25
    choice = choose_path(body, longest=LONGEST)
    assert choice == Choice(
        Path.PACKED, ((Path.SHARED, "dropout 0.25 in model.decoder.layers.1.dropout would fall on both answers alike"),)
    )
    assert_equals_plain(body, Path.PACKED)


def test_dropout_in_attention_refuses_packs_and_padded_rows_train_with_it() -> None:
    body = tiny_model("gpt2")
    body.transformer.h[0].attn.attn_dropout.p = 0.5
    choice = choose_path(body, longest=LONGEST)
    assert choice.path is Path.PADDED
    assert "attention dropout" in choice.refused[1][1]
    body.train()
    engine = LogpsModel(body, path=choice.path)
    with torch.random.fork_rng():
        first, second = engine(PAIRS), engine(PAIRS)
    assert not torch.equal(first.chosen.total, second.chosen.total)


def test_a_router_that_draws_at_random_in_training_refuses_sharing() -> None:
    choice = choose_path(tiny_model("mixtral", router_jitter_noise=0.3), longest=LONGEST)
    assert choice.path is Path.PACKED
    assert "in training the model draws at random" in choice.refused[0][1]
    assert choose_path(tiny_model("mixtral"), longest=LONGEST) == Choice(Path.SHARED)


def test_a_loss_on_the_router_is_refused_with_what_to_set() -> None:
    with pytest.raises(ConfigError, match="output_router_logits: true") as caught:
        choose_path(tiny_model("mixtral", output_router_logits=True), longest=LONGEST)
    assert "set output_router_logits to false" in str(caught.value)


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_a_model_that_sees_what_it_should_predict_is_refused(family: str) -> None:
    with pytest.raises(ConfigError, match="sees tokens before it predicts them"):
        choose_path(tiny_model(family), longest=LONGEST)


def test_an_encoder_set_up_as_a_decoder_is_taken() -> None:
    assert_equals_plain(body := tiny_model("bert", is_decoder=True), choose_path(body, longest=LONGEST).path)


def test_learned_tokens_before_every_row_are_refused() -> None:
    from peft import PromptTuningConfig, TaskType, get_peft_model

    body = get_peft_model(tiny_model("llama"), PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
    with pytest.raises(ConfigError, match="PromptTuningConfig, which puts learned tokens before every row"):
        choose_path(body, longest=LONGEST)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_padded_rows_longer_than_a_window_are_finite_and_right(implementation: str) -> None:
    body = tiny_model("mistral")
    body.set_attn_implementation(implementation)
    assert_equals_plain(body, Path.PADDED)


def test_log_probs_that_are_not_finite_are_never_taken_for_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(own: Any) -> Any:
        return lambda *args, **kwargs: (own(*args, **kwargs)[0] * float("nan"), None)

    monkeypatch.setattr(attention, "packed_attention", poisoned(attention.packed_attention))
    choice = choose_path(tiny_model("llama"), longest=LONGEST)
    assert choice.path is Path.PADDED
    assert "differ by inf" in choice.refused[0][1]


@pytest.mark.parametrize("family", SHARING)
def test_in_bf16_a_family_shares_and_a_rejected_branch_cut_off_from_its_prompt_is_still_refused(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = tiny_model(family).to(torch.bfloat16)
    assert choose_path(body, longest=LONGEST) == Choice(Path.SHARED)
    monkeypatch.setattr(attention, "packed_attention", cut_off(attention.packed_attention))
    assert choose_path(body, longest=LONGEST).path is Path.PACKED

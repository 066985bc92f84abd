"""Attention over a pack, example by example, against a softmax written out over a dense mask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attention_oracle import CASES, PLAIN_CASES, SCORE_CASES, Case, assert_as_oracle, dense, inputs, layout_of, sees
from hypothesis import given, settings
from torch import Tensor, nn
from transformers import AttentionInterface

from orpo.engine.attention import LAYOUT, NAME, PackedAttentionError, attend_by_example, packed_attention, register

ALL_CASES = PLAIN_CASES | SCORE_CASES


def test_the_oracle_lets_a_branch_see_its_prefix_and_itself() -> None:
    # Prefix of two, branches of two and one, then an example of one prefix row and one branch row.
    rows = ["100000", "110000", "111000", "111100", "110010"]
    layout = layout_of([(2, (2, 1)), (0, (1,))])
    want = [*rows, "000001"]
    assert ["".join("01"[int(seen)] for seen in row) for row in sees(layout).tolist()] == want
    within_two = ["100000", "110000", "011000", "001100", "010010", "000001"]
    assert ["".join("01"[int(seen)] for seen in row) for row in sees(layout, 2).tolist()] == within_two


@pytest.mark.parametrize("name", ALL_CASES)
def test_values_and_gradients_are_those_of_a_dense_mask(name: str) -> None:
    # Scores with caps or sinks are made in fp32 whatever the dtype.
    assert_as_oracle(attend_by_example, ALL_CASES[name], tolerance=1e-10 if name in PLAIN_CASES else 1e-5)


@given(case=CASES)
@settings(deadline=None, max_examples=60)
def test_values_and_gradients_are_those_of_a_dense_mask_for_any_layout(case: Case) -> None:
    assert_as_oracle(attend_by_example, case)


@pytest.mark.parametrize("window", [None, 3])
def test_nothing_flows_between_branches_or_examples(window: int | None) -> None:
    case = Case(((3, (2, 4, 1)), (2, (3, 2))), window=window)
    query, key, value = inputs(case, dtype=torch.float32)
    out = attend_by_example(query, key, value, case.layout, scale=case.scale, window=window, softcap=None, sinks=None)
    seen = sees(case.layout, window)
    for row in range(case.layout.num_rows):
        gradients = torch.autograd.grad(out[0, row].sum(), [key, value], retain_graph=True)
        for gradient in gradients:
            assert not gradient[0, :, ~seen[row]].any()
        assert gradients[1][0, :, seen[row]].all()


def _call(case: Case, module: nn.Module | None = None, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    query, key, value = inputs(case, dtype=torch.float32)[:3]
    kwargs = {LAYOUT: case.layout, **kwargs}
    return packed_attention(module or nn.Module(), query, key, value, mask, **kwargs)[0]


def test_transformers_finds_it_by_name() -> None:
    register()
    assert AttentionInterface()[NAME] is packed_attention


@pytest.mark.parametrize("name", ["several pairs", "window smaller than branches", "window as long as the longest", "soft-cap"])
def test_the_registered_function_reads_the_models_options(name: str) -> None:
    case = ALL_CASES[name]
    query, key, value = inputs(case, dtype=torch.float32)
    got = _call(case, scaling=case.scale, sliding_window=case.window, softcap=case.softcap)
    torch.testing.assert_close(got.double(), dense(query, key, value, sees(case.layout, case.window), case, None), rtol=1e-5, atol=1e-5)


def test_the_registered_function_takes_sinks() -> None:
    case = SCORE_CASES["sinks"]
    query, key, value, sinks = inputs(case, dtype=torch.float32)
    got = _call(case, scaling=case.scale, s_aux=sinks)
    torch.testing.assert_close(got.double(), dense(query, key, value, sees(case.layout), case, sinks), rtol=1e-5, atol=1e-5)


def test_without_a_scaling_scores_are_divided_by_the_root_of_the_head_dimension() -> None:
    case = PLAIN_CASES["one pair"]
    torch.testing.assert_close(_call(case), _call(case, scaling=1 / math.sqrt(case.head_dim)))


def test_it_counts_its_calls_in_the_layout() -> None:
    layout = PLAIN_CASES["one pair"].layout
    for _ in range(3):
        _call(PLAIN_CASES["one pair"], **{LAYOUT: layout})
    assert layout.cache["calls"] == 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({LAYOUT: None}, "the layout of the pack did not reach the attention layer"),
        ({LAYOUT: "a word"}, "the layout of the pack did not reach the attention layer"),
        ({"mask": torch.ones(12, 12)}, "an attention mask of its own"),
        ({"dropout": 0.1}, "dropout would fall on all branches"),
        ({"is_causal": False}, "not causal"),
        ({"position_bias": torch.zeros(1)}, "asks for position_bias"),
        ({"position_bias": 1.0, "cu_seq_lens_q": torch.zeros(1)}, "asks for cu_seq_lens_q, position_bias"),
    ],
)
def test_what_a_pack_cannot_give_is_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(PackedAttentionError, match=message):
        _call(PLAIN_CASES["one pair"], **kwargs)


def test_a_layer_that_says_it_is_not_causal_is_refused_unless_the_call_says_otherwise() -> None:
    module = nn.Module()
    module.is_causal = False
    with pytest.raises(PackedAttentionError, match="not causal"):
        _call(PLAIN_CASES["one pair"], module)
    _call(PLAIN_CASES["one pair"], module, is_causal=True)


def test_arguments_that_change_nothing_are_let_through() -> None:
    plain = _call(PLAIN_CASES["one pair"])
    assert torch.equal(plain, _call(PLAIN_CASES["one pair"], use_cache=False, position_ids=torch.zeros(1, 12), position_bias=None))


def test_under_autocast_queries_that_a_norm_left_in_fp32_meet_bf16_values() -> None:
    case = PLAIN_CASES["several pairs"]
    query, key, value = inputs(case, dtype=torch.bfloat16)
    want = packed_attention(nn.Module(), query, key, value, None, scaling=case.scale, **{LAYOUT: case.layout})[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = packed_attention(nn.Module(), query.float(), key.float(), value, None, scaling=case.scale, **{LAYOUT: case.layout})[0]
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, want)

"""Rows of like length side by side: each row once, little padding, and the numbers of single rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.layout import pack
from orpo.engine.model import LogpsModel
from orpo.engine.padded import MAX_PADDING, length_groups, padded_hidden
from orpo.engine.paths import Path

VOCABULARY = 37
ROUNDING = 1e-6
"""Of areas of whole tokens: groups that hold exactly the most padding may fall on either side."""


def drawn(*lengths: int) -> TokenizedExample:
    generator = np.random.default_rng(lengths)
    prompt, *answers = (generator.integers(0, VOCABULARY, size=length, dtype=np.int32) for length in lengths)
    return TokenizedExample(prompt, tuple(answers), Source("pairs.jsonl", 1))


PAIRS = [drawn(5, 4, 3), drawn(1, 6, 2), drawn(9, 1, 7), drawn(1, 1, 1), drawn(3, 20, 19)]


def tiny(family: str) -> Any:
    """A random model in fp32 without dropout: rotary positions, rotary with a window, or learned absolute positions."""
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    if family == "gpt2":
        config = transformers.GPT2Config(**sizes, n_embd=24, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        return transformers.GPT2LMHeadModel(config).train()
    sizes |= {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    if family == "mistral":
        return transformers.MistralForCausalLM(transformers.MistralConfig(**sizes, sliding_window=4)).train()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).train()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_each_row_is_in_one_group_and_little_of_a_group_is_padding(sizes: list[int]) -> None:
    groups = length_groups(sizes)
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    for group in groups:
        area = sizes[group[0]] * len(group)
        assert max(sizes[index] for index in group) == sizes[group[0]]
        assert area - sum(sizes[index] for index in group) <= MAX_PADDING * area + ROUNDING


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_groups_go_from_long_rows_to_short_ones_and_none_ends_early(sizes: list[int]) -> None:
    groups = length_groups(sizes)
    flat = [sizes[index] for group in groups for index in group]
    assert flat == sorted(sizes, reverse=True)
    for group, following in pairwise(groups):
        area = sizes[group[0]] * (len(group) + 1)
        joined = sum(sizes[index] for index in group) + sizes[following[0]]
        assert area - joined > MAX_PADDING * area - ROUNDING


def test_groups_of_a_few_lengths_worked_out_by_hand() -> None:
    # 10 + 9 + 7 of 30 is 13 % padding; with 5 it is 31 of 40, 22 %; 5 + 4 of 10 is 10 %, with 1 it is 10 of 15.
    assert length_groups([9, 5, 10, 1, 7, 4]) == [[2, 0, 4], [1, 5], [3]]
    assert length_groups([6, 6, 6]) == [[0, 1, 2]]
    assert length_groups([3]) == [[0]]


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_hidden_states_come_back_in_the_order_of_the_pack(family: str) -> None:
    body = tiny(family)
    batch = pack(PAIRS, sharing=False)
    with torch.no_grad():
        found = padded_hidden(body, batch)
        rows = torch.split(batch.input_ids[0], [size for example in batch.layout.examples for size in example.branches])
        assert len(rows) == 2 * len(PAIRS)
        expected = torch.cat([body.base_model(input_ids=row[None], use_cache=False).last_hidden_state[0] for row in rows])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("with_prompt", [True, False])
@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_log_probs_and_gradients_are_those_of_single_rows(family: str, with_prompt: bool) -> None:
    body = tiny(family)
    found: dict[Path, tuple[list[Tensor], dict[str, Tensor]]] = {}
    for path in (Path.PADDED, Path.PLAIN):
        logps = LogpsModel(body, path=path, with_prompt=with_prompt, chunk_bytes=9 * VOCABULARY * 4)(PAIRS)
        parts = [part for part in (logps.chosen, logps.rejected, logps.prompt) if part is not None]
        assert len(parts) == 2 + with_prompt
        body.zero_grad()
        torch.stack([(part.mean * torch.arange(1, len(PAIRS) + 1)).sum() * factor for factor, part in enumerate(parts, 1)]).sum().backward()
        found[path] = [part.mean.detach() for part in parts], {name: p.grad.clone() for name, p in body.named_parameters()}
    torch.testing.assert_close(found[Path.PADDED][0], found[Path.PLAIN][0], rtol=0, atol=1e-5)
    for name, gradient in found[Path.PLAIN][1].items():
        allowed = 1e-5 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(
            found[Path.PADDED][1][name], gradient, rtol=0, atol=allowed, msg=lambda text, name=name: f"{name}: {text}"
        )

"""The slow engine against log-probs worked out by hand from the model's own logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample, unit_counts
from orpo.engine.model import LogpsModel
from orpo.engine.plain import pair_logps, row_logps


def example(prompt: list[int], chosen: list[int], rejected: list[int]) -> TokenizedExample:
    ids = [np.array(part, dtype=np.int32) for part in (prompt, chosen, rejected)]
    return TokenizedExample(ids[0], (ids[1], ids[2]), Source("pairs.jsonl", 1))


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval().requires_grad_(False)


def test_each_log_prob_is_that_of_a_token_given_all_before_it(model: torch.nn.Module) -> None:
    row = [5, 9, 200, 31, 7]
    found = row_logps(model, np.array(row[:2], dtype=np.int32), np.array(row[2:], dtype=np.int32))
    for position in range(1, len(row)):
        logits = model(input_ids=torch.tensor([row[:position]])).logits[0, -1].double()
        by_hand = logits[row[position]] - torch.log(torch.exp(logits).sum())
        assert float(found[position - 1]) == pytest.approx(float(by_hand), abs=2e-6)


def test_sums_split_a_row_into_prompt_and_completion(model: torch.nn.Module) -> None:
    pair = example([5, 9, 11], [200, 31, 7], [40, 8])
    logps = pair_logps(model, [pair])
    chosen = row_logps(model, pair.prompt_ids, pair.completions[0]).double()
    rejected = row_logps(model, pair.prompt_ids, pair.completions[1]).double()
    assert float(logps.prompt.total[0]) == pytest.approx(float(chosen[:2].sum()))
    assert float(logps.chosen.total[0]) == pytest.approx(float(chosen[2:].sum()))
    assert float(logps.rejected.total[0]) == pytest.approx(float(rejected[2:].sum()))
    assert [float(part.num_tokens[0]) for part in (logps.prompt, logps.chosen, logps.rejected)] == [2, 3, 2]
    assert float(logps.rejected.mean[0]) == pytest.approx(float(rejected[2:].mean()))
    assert logps.chosen.total.dtype == torch.float64


def test_a_prompt_of_one_token_predicts_nothing_and_its_mean_is_zero(model: torch.nn.Module) -> None:
    logps = pair_logps(model, [example([5], [6], [7])])
    assert float(logps.prompt.num_tokens[0]) == 0
    assert float(logps.prompt.mean[0]) == 0.0
    assert float(logps.chosen.total[0]) == pytest.approx(float(row_logps(model, np.array([5]), np.array([6]))[0]))


def test_pairs_do_not_touch_each_other(model: torch.nn.Module) -> None:
    pairs = [example([5, 9], [200, 31], [40]), example([77, 8, 3], [12], [13, 14, 15])]
    together = pair_logps(model, pairs)
    for i, pair in enumerate(pairs):
        alone = pair_logps(model, [pair])
        assert torch.equal(together.chosen.total[i : i + 1], alone.chosen.total)
        assert torch.equal(together.rejected.total[i : i + 1], alone.rejected.total)


def test_an_empty_share_of_a_step_gives_zero_gradients_for_every_parameter(tiny_llama: Path) -> None:
    model = LogpsModel(transformers.AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32))
    logps = model([])
    assert logps.chosen.total.shape == (0,)
    logps.chosen.total.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_unit_counts_are_those_counted_by_hand() -> None:
    pairs = [example([5, 9, 11], [200, 31, 7], [40, 8]), example([1], [2, 3], [4])]
    labelled = dict.fromkeys(("completions", "desirable", "undesirable", "desirable_tokens"), 0)
    assert unit_counts(pairs) == {"pairs": 2, "rankings": 2, "chosen_tokens": 5, "prompt_and_chosen_tokens": 7, **labelled}
    assert pairs[0].num_tokens == 8

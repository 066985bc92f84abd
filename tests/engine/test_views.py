"""Examples with different numbers of completions in one batch: what objectives read of them, and its gradients on every path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orpo.core.logps import ChosenLogps, LabelledLogps, RankedLogps
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.model import LogpsModel
from orpo.engine.paths import Path
from orpo.engine.plain import row_logps
from orpo.engine.views import logps_of, split, totals_by_example, viewed

VOCABULARY = 37


def drawn(*lengths: int, scored: bool = False) -> TokenizedExample:
    """A random prompt and completions of `lengths`; every second completion is desirable, scores fall."""
    generator = np.random.default_rng(lengths)
    prompt, *answers = (generator.integers(0, VOCABULARY, size=length, dtype=np.int32) for length in lengths)
    labels = tuple(k % 2 == 0 for k in range(len(answers)))
    scores = tuple(float(-k) for k in range(len(answers))) if scored else ()
    return TokenizedExample(prompt, tuple(answers), Source("answers.jsonl", 1), labels, scores)


def agreeing(example: TokenizedExample, num: int) -> TokenizedExample:
    """The same with `num` tokens that all its completions begin with."""
    begins = np.arange(1, num + 1, dtype=np.int32)
    return replace(example, completions=tuple(np.concatenate([begins, ids]) for ids in example.completions))


MIXED = [drawn(5, 4), drawn(1, 6, 2), drawn(9, 1, 7, 3), agreeing(drawn(4, 2, 3, 1, 5), 3), drawn(1, 1), agreeing(drawn(6, 3, 4), 2)]


def tiny() -> Any:
    """A random Llama in fp32 whose weights are large enough that every token seen changes every log-prob."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokens = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **tokens, initializer_range=0.3)).train()


def loss_of(logps: LabelledLogps | RankedLogps) -> Tensor:
    """A loss that weighs every completion differently, by its label or its place."""
    if isinstance(logps, LabelledLogps):
        signs = torch.where(logps.is_desirable, 1.0, -0.5)
        return torch.nn.functional.softplus(-signs * logps.completion.mean).sum()
    places = torch.arange(1, logps.completions.total.shape[1] + 1)
    held = logps.completions.num_tokens > 0
    return torch.where(held, torch.nn.functional.softplus(logps.completions.mean / places), 0).sum()


def stepped(path: Path, reads: Any, *, hinted: bool, rows: int = 1000) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one micro-batch of MIXED (of its rankings where rankings are read)."""
    body = tiny()
    model = LogpsModel(body, path=path, reads=reads, chunk_bytes=rows * VOCABULARY * 4)
    examples = MIXED if reads == "labelled" else [example for example in MIXED if len(example.completions) > 1]
    loss = loss_of(model(examples, share=(lambda part, members: loss_of(part)) if hinted else None))
    loss.backward()
    model.release()
    return loss.item(), {name: parameter.grad for name, parameter in body.named_parameters()}


@pytest.mark.parametrize("rows", [1000, 40, 3])
@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("path", [Path.SHARED, Path.PACKED, Path.PADDED])
@pytest.mark.parametrize("reads", ["labelled", "rankings"])
def test_the_gradient_of_every_parameter_is_that_of_single_rows(reads: str, path: Path, hinted: bool, rows: int) -> None:
    expected_loss, expected = stepped(Path.PLAIN, reads, hinted=False)
    loss, found = stepped(path, reads, hinted=hinted, rows=rows)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    for name, gradient in expected.items():
        allowed = 1e-5 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=allowed, msg=lambda text, name=name: f"{name}: {text}")


def by_hand(body: Any) -> list[list[float]]:
    """The summed log-prob of every completion of MIXED, from a row of its own."""
    with torch.no_grad():
        return [[float(row_logps(body, e.prompt_ids, ids)[len(e.prompt_ids) - 1 :].double().sum()) for ids in e.completions] for e in MIXED]


@pytest.mark.parametrize("path", list(Path))
def test_labelled_answers_lie_flat_with_their_labels_and_lengths(path: Path) -> None:
    body = tiny()
    model = LogpsModel(body, path=path, reads="labelled")
    with torch.no_grad():
        logps = model(MIXED)
        totals = model.completion_totals(MIXED)
    model.release()
    assert logps.completion.total.tolist() == pytest.approx([total for row in by_hand(body) for total in row], abs=1e-4)
    assert torch.equal(totals, logps.completion.total)
    assert logps.completion.num_tokens.tolist() == [len(ids) for e in MIXED for ids in e.completions]
    assert logps.is_desirable.tolist() == [label for e in MIXED for label in e.labels]


def test_rankings_are_rows_with_zeros_behind_them() -> None:
    body = tiny()
    model = LogpsModel(body, path=Path.SHARED, reads="rankings")
    with torch.no_grad():
        logps = model(MIXED)
    model.release()
    for row, (totals, example) in enumerate(zip(by_hand(body), MIXED, strict=True)):
        num = len(totals)
        assert logps.completions.total[row, :num].tolist() == pytest.approx(totals, abs=1e-4)
        assert logps.completions.num_tokens[row, :num].tolist() == [len(ids) for ids in example.completions]
        assert not logps.completions.total[row, num:].any()
        assert not logps.completions.num_tokens[row, num:].any()
    assert logps.scores is None


def test_scores_stand_where_their_completions_do() -> None:
    examples = [drawn(3, 2, 2, scored=True), drawn(3, 2, 2, 4, scored=True)]
    logps = viewed(torch.arange(5, dtype=torch.float64), examples, reads="rankings")
    assert logps.scores.tolist() == [[0.0, -1.0, 0.0], [0.0, -1.0, -2.0]]
    assert logps.completions.total.tolist() == [[0.0, 1.0, 0.0], [2.0, 3.0, 4.0]]


@pytest.mark.parametrize(
    ("reads", "name", "shape"), [("pairs", "chosen", (0,)), ("labelled", "completion", (0,)), ("rankings", "completions", (0, 2))]
)
def test_a_rank_without_work_sees_empty_sums_of_every_kind(reads: Any, name: str, shape: tuple[int, ...]) -> None:
    part = getattr(LogpsModel(tiny(), path=Path.SHARED, reads=reads)([]), name)
    assert part.total.shape == part.num_tokens.shape == shape
    assert part.total.requires_grad


@pytest.mark.parametrize("examples", [MIXED, MIXED[1:2] + MIXED[5:]], ids=["mixed", "pairs"])
def test_a_prompts_sum_stands_behind_those_of_its_completions(examples: list[TokenizedExample]) -> None:
    sums: list[float] = []
    for number, example in enumerate(examples):
        sums += [10 * number + k for k in range(len(example.completions))] + [-number - 1]
    totals, prompts = split(torch.tensor(sums), examples)
    assert prompts.tolist() == [-number - 1 for number in range(len(examples))]
    assert totals.tolist() == [total for total in sums if total >= 0]


def test_pairs_are_the_same_bits_whatever_the_order_of_sums_is_made_by() -> None:
    """The table of a uniform batch and the indices of a mixed one pick the same numbers."""
    pairs = [MIXED[1], MIXED[5]]
    sums = torch.randn(6, dtype=torch.float64)
    logps: Any = logps_of(sums, pairs, reads="pairs", with_prompt=True)
    assert torch.equal(logps.chosen.total, sums[[0, 3]])
    assert torch.equal(logps.rejected.total, sums[[1, 4]])
    assert torch.equal(logps.prompt.total, sums[[2, 5]])


def test_the_chosen_alone_is_a_view_of_its_own_also_of_no_examples_at_all() -> None:
    examples = [replace(drawn(5, 4), labels=()), replace(drawn(1, 2), labels=())]
    sums = torch.tensor([-1.0, -2.0, -3.0, 0.0])
    logps = logps_of(sums, examples, reads="pairs", with_prompt=True, chosen_alone=True)
    assert isinstance(logps, ChosenLogps)
    assert (logps.chosen.total.tolist(), logps.chosen.num_tokens.tolist()) == ([-1.0, -3.0], [4.0, 2.0])
    assert logps.prompt is not None
    assert (logps.prompt.total.tolist(), logps.prompt.num_tokens.tolist()) == ([-2.0, 0.0], [4.0, 0.0])
    assert totals_by_example(logps, examples) == [{"chosen": -1.0, "prompt": -2.0}, {"chosen": -3.0, "prompt": 0.0}]
    assert isinstance(logps_of(sums[:0], [], reads="pairs", chosen_alone=True), ChosenLogps)


def test_what_is_no_pair_or_has_no_labels_is_not_taken_for_one() -> None:
    refused: list[tuple[str, Callable[[], Any]]] = [
        ("two completions", lambda: viewed(torch.zeros(3), [MIXED[2]], reads="pairs")),
        ("have labels", lambda: viewed(torch.zeros(2), [replace(MIXED[1], labels=())], reads="labelled")),
    ]
    for text, view in refused:
        with pytest.raises(AssertionError, match=text):
            view()

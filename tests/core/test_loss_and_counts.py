"""Sums and counts: what is added up, and what it is divided by once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orpo.core.logps import CompletionLogps
from orpo.core.loss import Loss, Term, step_loss
from orpo.core.records import Message, PreferencePair, Source
from orpo.core.tokens import UNITS, TokenizedExample, add_counts, unit_counts


def example(prompt: int, chosen: int, rejected: int) -> TokenizedExample:
    ids = [np.arange(length, dtype=np.int32) for length in (prompt, chosen, rejected)]
    return TokenizedExample(ids[0], (ids[1], ids[2]), Source("a.jsonl", 1))


def answers(*lengths: int, labels: tuple[bool, ...] = (), scores: tuple[float, ...] = ()) -> TokenizedExample:
    """An example of a prompt of three tokens with completions of `lengths`."""
    ids = tuple(np.arange(length, dtype=np.int32) for length in lengths)
    return TokenizedExample(np.arange(3, dtype=np.int32), ids, Source("a.jsonl", 1), labels, scores)


def counted(*examples: TokenizedExample) -> dict[str, int]:
    """The counts that are not zero."""
    return {unit: count for unit, count in unit_counts(examples).items() if count}


def test_units_are_counted_as_by_hand() -> None:
    # The first token of a prompt is never predicted: 4 - 1 + 2 and 1 - 1 + 5. A pair is a ranking of two.
    assert counted(example(4, 2, 9), example(1, 5, 1)) == {"pairs": 2, "rankings": 2, "chosen_tokens": 7, "prompt_and_chosen_tokens": 10}


def test_a_ranking_of_more_than_two_is_no_pair_and_its_best_answer_counts_its_tokens() -> None:
    counts = counted(answers(5, 2, 4), answers(6, 3, scores=(0.9, 0.1)))
    assert counts == {"pairs": 1, "rankings": 2, "chosen_tokens": 11, "prompt_and_chosen_tokens": 15}


def test_a_demonstration_counts_as_a_pair_without_its_rejected_and_is_no_ranking() -> None:
    assert counted(answers(5)) == {"pairs": 1, "chosen_tokens": 5, "prompt_and_chosen_tokens": 7}


def test_labelled_answers_are_counted_one_by_one_and_are_neither_pairs_nor_rankings() -> None:
    counts = counted(answers(5, 2, 4, labels=(True, False, True)), answers(7, labels=(False,)))
    assert counts == {"completions": 4, "desirable": 2, "undesirable": 2, "desirable_tokens": 9}


def test_a_term_whose_unit_does_not_occur_in_the_step_is_0_and_keeps_its_graph() -> None:
    leaf = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    terms = (Term("undesirable", leaf[:0].sum(), "undesirable"), Term("desirable", leaf.exp().sum(), "desirable"))
    loss = step_loss(Loss(terms, {}), {"desirable": 2, "undesirable": 0})
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert (loss.item(), gradient.tolist()) == (1.0, [0.5, 0.5])
    assert example(4, 2, 9).num_tokens == 15


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    parts = [example(3, 2, 1), example(2, 7, 4), answers(1, 2, labels=(True, False)), answers(3, 1, 1)]
    assert add_counts(unit_counts(parts[:1]), unit_counts(parts[1:])) == unit_counts(parts)
    assert unit_counts([]) == dict.fromkeys(UNITS, 0)


def test_a_step_divides_each_term_by_the_count_of_its_unit_and_weighs_it() -> None:
    terms = (Term("nll", torch.tensor(21.0), "chosen_tokens"), Term("odds_ratio", torch.tensor(6.0), "pairs", weight=0.5))
    counts = {"pairs": 2, "chosen_tokens": 7, "prompt_and_chosen_tokens": 10}
    loss = step_loss(Loss(terms, {}), counts)
    assert loss.dtype == torch.float64
    assert loss.item() == 21 / 7 + 0.5 * 6 / 2


def test_a_term_of_an_unknown_unit_is_refused() -> None:
    with pytest.raises(AssertionError, match="unit 'rows'"):
        Term("nll", torch.tensor(1.0), "rows")


def test_the_mean_of_a_completion_is_per_token_and_zero_where_nothing_is_predicted() -> None:
    logps = CompletionLogps(torch.tensor([-6.0, 0.0]), torch.tensor([4.0, 0.0]))
    assert logps.mean.tolist() == [-1.5, 0.0]


def test_a_source_reads_as_a_place() -> None:
    assert str(Source("data/a.jsonl", 17)) == "data/a.jsonl:17"
    assert str(Source("a.parquet", 3, is_line=False)) == "a.parquet:row 3"


def test_a_pair_knows_whether_it_is_a_conversation_and_a_message_keeps_its_extras() -> None:
    source = Source("a.jsonl", 1)
    turn = Message("assistant", "hello", {"name": "bot"})
    assert turn.as_dict() == {"role": "assistant", "content": "hello", "name": "bot"}
    assert PreferencePair((Message("user", "x"),), (turn,), (turn,), source).is_chat
    assert not PreferencePair("x", "y", "z", source).is_chat

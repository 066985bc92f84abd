"""What a max_length costs, against what `apply_limit` does with it row by row."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.data.checks import check_data
from orpo.data.limits import apply_limit
from orpo.data.max_lengths import FullLengths, suggested_max_length
from orpo.data.repeats import without_repeats


def example(prompt: list[int], *completions: list[int]) -> TokenizedExample:
    arrays = tuple(np.array(ids, np.int32) for ids in completions)
    return TokenizedExample(np.array(prompt, np.int32), arrays, Source("a.jsonl", 3))


def lengths_of(*examples: TokenizedExample) -> FullLengths:
    lengths = FullLengths()
    for item in examples:
        lengths.append(item)
    return lengths


def test_what_a_limit_does_by_hand():
    lengths = lengths_of(
        example([1] * 4, [5] * 3, [6] * 2),  # a row of 7, 9 distinct tokens
        example([1] * 4, [5, 5, 5, 5, 5], [5, 5, 6]),  # a row of 9; the answers differ from their third token on
        example([1] * 8, [5], [6]),  # a row of 9
    )
    assert lengths.at(9) == {
        "max_length": 9, "rows_over": 0, "prompts_over": 0, "answers_cut": 0, "identical": 0, "tokens_drop": 9 + 12 + 10, "tokens_cut": 31,
    }  # fmt: skip
    assert lengths.at(6) == {
        "max_length": 6, "rows_over": 3, "prompts_over": 1, "answers_cut": 3, "identical": 1, "tokens_drop": 0, "tokens_cut": 4 + 2 + 2,
    }  # fmt: skip


IDS = st.lists(st.integers(1, 2), min_size=1, max_size=7)
PAIRS = st.builds(example, IDS, IDS, IDS).filter(lambda item: len(without_repeats(item).completions) == 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(PAIRS, min_size=1, max_size=8), st.integers(1, 15))
def test_the_table_is_what_cutting_and_dropping_do_to_pairs(examples, limit):
    found = lengths_of(*examples).at(limit)
    cut = [apply_limit(item, limit, "cut-completion") for item in examples]
    whole = [item for item in examples if isinstance(apply_limit(item, limit, "drop"), TokenizedExample)]
    kinds = [item.kind for item in cut if not isinstance(item, TokenizedExample)]
    assert found["rows_over"] == len(examples) - len(whole)
    assert (found["prompts_over"], found["identical"]) == (kinds.count("prompt-too-long"), kinds.count("identical-after-cut"))
    assert found["tokens_drop"] == sum(item.num_tokens for item in whole)
    assert found["tokens_cut"] == sum(item.num_tokens for item in cut if isinstance(item, TokenizedExample))
    room = [limit - len(item.prompt_ids) for item in examples]
    assert found["answers_cut"] == sum(len(ids) > num > 0 for item, num in zip(examples, room, strict=True) for ids in item.completions)


def test_rankings_and_single_answers_are_counted_too():
    ranking, answer = example([1], [5, 5], [5, 6], [5, 7, 7]), example([1], [5, 5, 5])
    found = lengths_of(ranking, answer).at(2)
    assert (found["rows_over"], found["answers_cut"], found["identical"], found["tokens_cut"]) == (2, 4, 1, 2)


@pytest.mark.parametrize(
    ("rows", "positions", "suggested"),
    [
        ([10], None, 64),
        ([64], None, 64),
        ([65], None, 128),
        ([10] * 99 + [500], None, 64),  # one in a hundred may be over
        ([10] * 98 + [500] * 2, None, 512),
        ([10] * 98 + [500], None, 512),  # of 99 rows none may
        ([5000], 2048, 2048),
        ([5000], 2000, 2000),
    ],
)
def test_the_suggested_limit_keeps_99_in_100_rows_whole_within_the_positions(rows, positions, suggested):
    assert suggested_max_length(np.array(rows), positions) == suggested


def test_the_table_lists_what_is_usual_in_use_and_suggested_and_stops_at_what_keeps_all():
    lengths = lengths_of(*(example([1] * 10, [5] * num, [6]) for num in range(1, 701, 7)))
    table = lengths.table(max_length=300, max_positions=4096)
    assert [limit["max_length"] for limit in table["limits"]] == [300, 512, 704]
    assert (table["suggested"], table["in_use"], table["rows_whole_share"], table["is_capped"]) == (704, 300, 1.0, False)
    assert table["rule"] == "the smallest multiple of 64 that keeps 99 % of the rows whole, at most the model's 4,096 positions"
    capped = lengths.table(max_length=None, max_positions=600)
    assert [limit["max_length"] for limit in capped["limits"]] == [512, 600]
    # Of the answers of 1, 8, ... 694 tokens those of up to 590 fit behind a prompt of 10: 85 of 100.
    assert (capped["suggested"], capped["rows_whole_share"], capped["is_capped"]) == (600, 0.85, True)
    assert FullLengths().table(max_length=None, max_positions=None) == {}


def test_the_check_counts_rows_as_they_were_before_its_own_limit(byte_tokenizer, tmp_path):
    rows = [{"prompt": f"What is {number}?", "chosen": " the" * (number + 1), "rejected": " no"} for number in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole, cut, dropped = (
        check_data([str(tmp_path / "a.jsonl")], tokenizer=byte_tokenizer, max_positions=512, **options).report
        for options in ({}, {"max_length": 20, "overlong": "cut-completion"}, {"max_length": 20})
    )
    assert cut.max_lengths == dropped.max_lengths
    (at_limit,) = (limit for limit in dropped.max_lengths["limits"] if limit["max_length"] == 20)
    assert at_limit["rows_over"] == sum(dropped.dropped.values()) == cut.tokens["rows_cut"] > 0
    assert at_limit["answers_cut"] == cut.tokens["answers_cut"]
    assert (at_limit["tokens_drop"], at_limit["tokens_cut"]) == (dropped.tokens["total"], cut.tokens["total"])
    assert whole.max_lengths["limits"][-1]["tokens_drop"] == whole.tokens["total"]

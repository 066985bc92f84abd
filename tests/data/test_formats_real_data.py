"""The real pairs beside the repository: every row checked against a count made in another way."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orpo.core.records import Message, PreferencePair, Source
from orpo.data.formats import Shape, detect_shape, read_pairs
from orpo.data.row import Problem, Row
from orpo.data.transcripts import as_text
from orpo.errors import DataError

OPENING = "\n\nAssistant:"


def rows_of(values: list[dict[str, Any]], name: str) -> list[Row]:
    return [Row(value, Source(name, number)) for number, value in enumerate(values, start=1)]


def read(rows: list[Row]) -> tuple[Shape, list[PreferencePair], list[Problem]]:
    shape = detect_shape(rows[:64])
    found = list(read_pairs(shape, lambda: rows))
    pairs = [item for item in found if isinstance(item, PreferencePair)]
    return shape, pairs, [item for item in found if isinstance(item, Problem)]


def contents(turns: Any) -> list[str]:
    return [turn.content for turn in turns if isinstance(turn, Message)]


def test_every_hh_row_is_a_pair_cut_at_its_last_assistant_turn_but_two_that_part_earlier(shared_data: Path) -> None:
    with gzip.open(shared_data / "hh-harmless-pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        values = [json.loads(line) for line in lines]
    shape, pairs, problems = read(rows_of(values, "hh.jsonl.gz"))
    assert (shape.name, len(values), len(pairs)) == ("hh-transcripts", 1300, 1300)
    early = []
    for value, pair in zip(values, pairs, strict=True):
        (head, _, good), (other_head, _, bad) = (value[side].rpartition(OPENING) for side in ("chosen", "rejected"))
        text = as_text(pair)
        assert (str(text.prompt) + str(text.chosen)).split() == value["chosen"].split()
        assert (str(text.prompt) + str(text.rejected)).split() == value["rejected"].split()
        if head != other_head:
            early.append(pair.source.number)
            continue
        assert (str(text.prompt).split(), contents(pair.chosen), contents(pair.rejected)) == (
            (head + OPENING).split(),
            [good.strip()],
            [bad.strip()],
        )
    assert early == [662, 1030]
    assert [(len(pairs[number - 1].chosen), len(pairs[number - 1].rejected)) for number in early] == [(2, 1), (2, 1)]
    doubled = [number for number, value in enumerate(values, start=1) if speaks_twice(value["chosen"]) or speaks_twice(value["rejected"])]
    assert [(problem.kind, problem.source.number) for problem in problems if problem.source] == [
        ("roles-do-not-alternate", number) for number in doubled
    ]


def speaks_twice(transcript: str) -> bool:
    """True when two turns of one speaker follow each other, found by lines alone."""
    lines = transcript.split("\n")
    speakers = [line.split(":")[0] for before, line in pairwise(lines) if before == "" and line[:6] in ("Human:", "Assist")]
    return any(left == right for left, right in pairwise(speakers))


def test_every_sharegpt_row_is_a_pair_with_its_turns_in_order(shared_data: Path) -> None:
    values = json.loads((shared_data / "mixed-long-pairs.json").read_text(encoding="utf-8"))
    shape, pairs, problems = read(rows_of(values, "mixed.json"))
    assert (shape.name, len(values), len(pairs)) == ("sharegpt-ranking", 150, 150)
    for value, pair in zip(values, pairs, strict=True):
        assert contents(pair.prompt) == [turn["value"] for turn in value["conversations"]]
        assert (contents(pair.chosen), contents(pair.rejected)) == ([value["chosen"]["value"]], [value["rejected"]["value"]])
        assert pair.metadata == {}
    roles = Counter(turn.role for pair in pairs for turn in pair.prompt if isinstance(turn, Message))
    told = Counter(turn["from"] for value in values for turn in value["conversations"])
    assert roles == {"system": told["system"], "user": told["human"], "assistant": told["gpt"]}
    odd = [number for number, value in enumerate(values, start=1) if has_control(value)]
    assert [(problem.kind, problem.source.number) for problem in problems if problem.source] == [
        ("control-characters", number) for number in odd
    ]


def has_control(value: dict[str, Any]) -> bool:
    texts = [turn["value"] for turn in (*value["conversations"], value["chosen"], value["rejected"])]
    return any(ord(letter) < 32 and letter not in "\t\n\r" for text in texts for letter in text)


def test_labelled_answers_are_recognised_and_refused_because_no_prompt_has_both_labels(shared_data: Path) -> None:
    values = json.loads((shared_data / "labelled-answers.json").read_text(encoding="utf-8"))
    rows = rows_of(values, "labelled.json")
    shape = detect_shape(rows[:64])
    assert (shape.name, shape.is_labelled) == ("labelled-messages", True)
    with pytest.raises(DataError, match="labelled data") as caught:
        read(rows)
    num_prompts = len({json.dumps(value["messages"][:-1]) for value in values})
    assert f"none of {num_prompts} prompts has both a good and a bad answer" in caught.value.fix
    found = list(read_pairs(shape, lambda: rows, pair_labelled=True))
    assert Counter(item.kind for item in found if isinstance(item, Problem)) == {"unpaired": 150}

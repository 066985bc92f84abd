"""The table of shapes: what is recognised, what each shape's rows become, and what is refused."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from orpo.core.records import LabelledAnswer, Message, PreferencePair, Ranking, Source
from orpo.data.columns import ROLES
from orpo.data.formats import SHAPES, Shape, detect_shape, read_pairs
from orpo.data.row import Problem, Row
from orpo.errors import DataError

FIXTURES = Path(__file__).parent / "fixtures" / "shapes"
DIALOGUES = [
    ("What is two plus two?", "Two plus two is four.", "Two plus two is five."),
    ("Name a colour of the sky.", "Blue, on a clear day.", "The sky has no colour."),
    ("How do I boil an egg?", "Put it into boiling water for eight minutes.", "Ask someone else."),
]
SYSTEM = "You are a helpful assistant."
NUM_SYSTEM_ROWS = {"system-prompt-chosen-rejected": 3, "orca-dpo-pairs": 2, "distilabel-orca": 3}
METADATA = {
    "ultrafeedback-binarized": {"prompt_id": "0000", "score_chosen": 8.5, "score_rejected": 4.0},
    "argilla-cleaned": {
        "source": "sharegpt",
        "chosen-rating": 4.5,
        "rejected-rating": 2.0,
        "chosen-model": "model-a",
        "rejected-model": "model-b",
    },
    "orpo-dpo-mix": {"source": "argilla/distilabel-intel-orca-dpo-pairs", "question": None},
    "distilabel-dpo": {"instruction": DIALOGUES[0][0], "generations": [DIALOGUES[0][2], DIALOGUES[0][1]]}
    | {"chosen_rating": 5, "rejected_rating": 2},
    "distilabel-orca": {"generations": [DIALOGUES[0][1], DIALOGUES[0][2]]},
}


def fixture_rows(name: str) -> list[Row]:
    path = FIXTURES / f"{name}.jsonl"
    return [Row(json.loads(line), Source(path.name, number)) for number, line in enumerate(path.read_text().splitlines(), start=1)]


def rows_of(*values: dict[str, Any]) -> list[Row]:
    return [Row(value, Source("pairs.jsonl", number)) for number, value in enumerate(values, start=1)]


def expected_parts(shape: Shape, number: int) -> tuple[Any, Any, Any]:
    """Prompt, chosen and rejected of a fixture's row, written down independently of the readers."""
    question, good, bad = DIALOGUES[number]
    if shape.name == "implicit-prompt-strings" or shape.name == "prompt-repeated-strings":
        return question, f" {good}", f" {bad}"
    if not shape.is_chat:
        return question, good, bad
    if shape.name == "alpaca-ranking":
        question = f"Answer the question.\n{question}"
    system = (Message("system", SYSTEM),) if number < NUM_SYSTEM_ROWS.get(shape.name, 0) else ()
    return (*system, Message("user", question)), (Message("assistant", good),), (Message("assistant", bad),)


def test_every_shape_has_a_fixture_and_every_fixture_a_shape() -> None:
    assert {path.stem for path in FIXTURES.glob("*.jsonl")} == {shape.name for shape in SHAPES}
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_fixture_is_recognised_and_becomes_the_dialogues_it_was_written_from(shape: Shape) -> None:
    rows = fixture_rows(shape.name)
    found = detect_shape(rows)
    assert (found.name, len(rows)) == (shape.name, 3)
    items = list(read_pairs(found, lambda: rows, pair_labelled=found.is_labelled))
    pairs = [item for item in items if isinstance(item, PreferencePair)]
    assert len(pairs) == (1 if found.is_labelled else 3)
    for number, pair in enumerate(pairs):
        assert (pair.prompt, pair.chosen, pair.rejected) == expected_parts(shape, number)
        assert str(pair.source) == f"{shape.name}.jsonl:{number + 1}"
        assert pair.is_chat == shape.is_chat
    if found.is_labelled:
        assert [(item.kind, item.severity) for item in items if isinstance(item, Problem)] == [("unpaired", "dropped")]
        assert pairs[0].metadata == {"rejected_source": f"{shape.name}.jsonl:2"}
    else:
        assert len(items) == 3
        assert pairs[0].metadata == METADATA.get(shape.name, {})


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_one_row_is_enough_unless_the_values_must_tell(shape: Shape) -> None:
    if shape.like is None:
        assert detect_shape(fixture_rows(shape.name)[:1]).name == shape.name


def test_the_roles_of_the_columns_flag_are_those_that_the_shapes_read() -> None:
    read = {role for shape in SHAPES for role in shape.roles}
    assert read == set(ROLES)


def test_rows_that_hold_two_shapes_are_refused_unless_one_says_all_the_other_says() -> None:
    """Every two fixtures laid over each other: either one shape refines the other, or the error names both and a way that works."""
    num_refused = 0
    for left, right in combinations(SHAPES, 2):
        first, second = fixture_rows(left.name)[0].value, fixture_rows(right.name)[0].value
        if any(first[name] != second[name] for name in first.keys() & second.keys()):
            continue
        try:
            found = detect_shape(rows_of({**first, **second}))
        except DataError as error:
            num_refused += 1
            if f"'{left.name}'" in str(error) and f"'{right.name}'" in str(error):
                check_the_way_out(error, {**first, **second}, left.name)
            continue
        one, other = (left, right) if found.name == left.name else (right, left)
        assert found.name == one.name or other.like is not None
        assert one.refines(other) or other.like is not None, f"{left.name} + {right.name} was guessed to be {found.name}"
    assert num_refused > 500


def check_the_way_out(error: DataError, row: dict[str, Any], name: str) -> None:
    way = next(part for part in error.fix.split("; ") if part.startswith(f"for '{name}' "))
    if "--columns " in way:
        columns = dict(part.split("=") for part in way.split("--columns ")[1].split(","))
        assert name in shapes_left(row, columns)
    else:
        assert " leave out '" in way


def shapes_left(row: dict[str, Any], columns: dict[str, str]) -> str:
    """The shape found, or the problem that names those that still fit: a third may fit as well."""
    try:
        return detect_shape(rows_of(row), columns=columns).name
    except DataError as still:
        return still.problem


def test_two_explicit_spellings_name_both_shapes_and_the_flags_that_choose() -> None:
    row = {"prompt": "q", "question": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError) as caught:
        detect_shape(rows_of(row))
    text = str(caught.value)
    assert text.startswith("pairs.jsonl:1: the rows fit more than one shape: 'prompt-chosen-rejected'")
    assert "'orca-dpo-pairs' --columns question=question" in text
    assert detect_shape(rows_of(row), columns={"question": "question"}).name == "orca-dpo-pairs"
    assert detect_shape(rows_of(row), columns={"prompt": "prompt"}).name == "prompt-chosen-rejected"


def test_an_unknown_shape_lists_the_columns_the_nearest_shape_and_a_mapping() -> None:
    with pytest.raises(DataError) as caught:
        detect_shape(rows_of({"prompt": "q", "good": "a", "bad": "b", "id": 7}))
    text = str(caught.value)
    assert "columns found: prompt (text), good (text), bad (text), id (number)" in text
    assert "'prompt-chosen-rejected'" in text
    assert "--columns chosen=good,rejected=bad" in text


def test_a_lost_prompt_is_not_taken_for_an_implicit_one() -> None:
    with pytest.raises(DataError, match="there is no prompt") as caught:
        detect_shape(rows_of({"context": "q", "chosen": "I think a", "rejected": "I think b"}))
    assert "--columns prompt=context" in caught.value.fix


def test_short_answers_that_begin_like_the_prompt_are_answers() -> None:
    assert detect_shape(rows_of({"prompt": "Hello", "chosen": "Hello! a", "rejected": "Hello, b"})).name == "prompt-chosen-rejected"


def test_a_column_of_the_mapping_that_is_not_there_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match="there is no column 'promt'") as caught:
        detect_shape(rows_of({"prompt": "q", "chosen": "a", "rejected": "b"}), columns={"prompt": "promt"})
    assert "--columns prompt=prompt" in caught.value.fix


def test_no_rows_and_all_empty_columns_are_errors() -> None:
    with pytest.raises(DataError, match="no rows"):
        detect_shape([])
    with pytest.raises(DataError, match="empty in the first 1 rows: chosen, rejected"):
        detect_shape(rows_of({"prompt": "q", "chosen": None, "rejected": None}))


def test_a_null_in_the_only_row_is_left_to_the_row_check() -> None:
    assert detect_shape(rows_of({"prompt": "q", "chosen": "a", "rejected": None})).name == "prompt-chosen-rejected"


def test_filled_in_images_are_refused_at_once_and_empty_ones_are_no_matter() -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError, match="'images' is filled in: only text is supported"):
        detect_shape(rows_of({**row, "images": ["a.png"]}))
    assert detect_shape(rows_of({**row, "images": [], "image": None})).name == "prompt-chosen-rejected"


def test_messages_written_as_json_text_are_messages() -> None:
    prompt, chosen, rejected = ([{"role": role, "content": text}] for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b")))
    row = rows_of({"prompt": json.dumps(prompt), "chosen": json.dumps(chosen), "rejected": json.dumps(rejected)})
    shape = detect_shape(row)
    assert shape.name == "messages"
    assert shape.to_pairs(row[0]) == [
        PreferencePair((Message("user", "q"),), (Message("assistant", "a"),), (Message("assistant", "b"),), row[0].source)
    ]


def test_the_kind_most_rows_have_decides_and_columns_of_few_rows_do_not() -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"} for _ in range(3)]
    odd = {"question": "q", "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}
    assert detect_shape(rows_of(odd, *rows)).name == "prompt-chosen-rejected"


def test_the_mapping_is_kept_in_the_shape_and_unmapped_columns_become_metadata() -> None:
    rows = rows_of({"question": "q", "good": "a", "bad": "b", "prompt": "not this", "topic": "sums"})
    shape = detect_shape(rows, columns={"prompt": "question", "chosen": "good", "rejected": "bad"})
    pair = shape.to_pairs(rows[0])[0]
    assert isinstance(pair, PreferencePair)
    assert (pair.prompt, pair.chosen, pair.rejected) == ("q", "a", "b")
    assert pair.metadata == {"prompt": "not this", "topic": "sums"}


def test_an_error_in_a_mapped_column_names_the_column_of_the_file() -> None:
    rows = rows_of({"question": "q", "good": "a", "bad": "b"}, {"question": "q", "good": "a"})
    shape = detect_shape(rows, columns={"prompt": "question", "chosen": "good", "rejected": "bad"})
    problem = shape.to_pairs(rows[1])[0]
    assert str(problem).startswith("pairs.jsonl:2: column 'bad' (as rejected) is missing; columns found: question, good")


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.holds == "rankings"], ids=lambda shape: shape.name)
def test_rows_of_a_ranked_shape_are_rankings_whose_ends_are_the_pair(shape: Shape) -> None:
    for row in fixture_rows(shape.name):
        (ranking, *_), (pair, *_) = shape.to_records(row), shape.to_pairs(row)
        assert isinstance(ranking, Ranking)
        assert isinstance(pair, PreferencePair)
        ends = (ranking.prompt, ranking.completions[0], ranking.completions[-1], ranking.source, ranking.tools, ranking.metadata)
        assert ends == (pair.prompt, pair.chosen, pair.rejected, pair.source, pair.tools, pair.metadata)
        assert list(ranking.scores) == sorted(ranking.scores, reverse=True)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.is_labelled], ids=lambda shape: shape.name)
def test_rows_of_a_labelled_shape_are_the_answers_that_its_pairs_are_made_of(shape: Shape) -> None:
    rows = fixture_rows(shape.name)
    answers = {item.source.number: item for row in rows for item in shape.to_records(row) if isinstance(item, LabelledAnswer)}
    assert [*answers] == [row.source.number for row in rows]
    pairs = [item for item in read_pairs(shape, lambda: rows, pair_labelled=True) if isinstance(item, PreferencePair)]
    assert pairs
    for pair in pairs:
        good = answers[pair.source.number]
        bad = answers[int(pair.metadata["rejected_source"].rpartition(":")[2])]
        assert (good.prompt, good.completion, good.is_desirable) == (pair.prompt, pair.chosen, True)
        assert (bad.prompt, bad.completion, bad.is_desirable) == (pair.prompt, pair.rejected, False)

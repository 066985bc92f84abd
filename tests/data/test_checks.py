from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo.core.records import Source
from orpo.data.checks import check_data
from orpo.data.traces import Overlap, overlap
from orpo.errors import ConfigError, DataError


def text_row(number: int, **parts: str) -> dict[str, str]:
    return {"prompt": f"What is {number}?", "chosen": f" It is {number}", "rejected": " no", **parts}


def chat_row(number: int) -> dict[str, object]:
    turn = [{"role": "user", "content": f"What is {number}?"}]
    answers = [[{"role": "assistant", "content": text}] for text in (f"It is {number}", "no")]
    return {"prompt": turn, "chosen": answers[0], "rejected": answers[1]}


def written(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_good_rows_become_pairs_with_tokens_in_file_order(byte_tokenizer, tmp_path):
    path = written(tmp_path / "a.jsonl", *map(text_row, range(300)))
    data = check_data([path], tokenizer=byte_tokenizer)
    assert (data.report.ok, data.report.rows, data.report.pairs, data.report.shape) == (True, 300, 300, "prompt-chosen-rejected")
    assert [str(item.source) for item in data.store][257:259] == [f"{path}:258", f"{path}:259"]
    assert byte_tokenizer.decode(data.store[257].completions[0]) == " It is 257</s>"
    data.raise_if_errors()


def test_the_report_has_the_contract_and_is_json(byte_tokenizer, tmp_path):
    same = text_row(3, rejected=" It is 3")
    path = written(tmp_path / "a.jsonl", text_row(1), "{broken", same, text_row(4, chosen=" a</s>b"))
    report = check_data([path], tokenizer=byte_tokenizer).report.as_dict()
    assert json.loads(json.dumps(report)) == report
    assert (report["shape"], report["rows"], report["pairs"]) == ("prompt-chosen-rejected", 4, 2)
    (error,) = report["errors"]
    assert (error["file"], error["line"], error["kind"]) == (path, 2, "malformed-json")
    assert error["message"]
    assert report["dropped"] == {"identical": 1}
    assert report["warnings"] == {"special-token-text": 1}
    assert report["files"] == [
        {"path": path, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(), "size": Path(path).stat().st_size}
    ]


def test_token_statistics_are_those_of_the_stored_pairs(byte_tokenizer, tmp_path):
    rows = [text_row(number, chosen=" a" * (number + 1), rejected=" b c") for number in range(7)]
    data = check_data([written(tmp_path / "a.jsonl", *rows)], tokenizer=byte_tokenizer)
    chosen = np.array([len(item.completions[0]) for item in data.store])
    rejected = np.array([len(item.completions[1]) for item in data.store])
    tokens = data.report.as_dict()["tokens"]
    assert tokens["chosen"] == {
        "min": chosen.min(),
        "median": np.median(chosen),
        "p95": chosen.max(),
        "max": chosen.max(),
        "total": chosen.sum(),
    }
    assert tokens["total"] == sum(item.num_tokens for item in data.store)
    assert tokens["chosen_longer_share"] == pytest.approx((chosen > rejected).mean(), abs=1e-4)


GOOD = st.integers(0, 10).map(text_row)
BAD = st.sampled_from(
    [
        "{cut",
        "[1, 2]",
        json.dumps({"prompt": "What?", "chosen": " yes"}),
        json.dumps(text_row(1, chosen=None)),
        json.dumps(text_row(1, prompt="")),
    ]
)
DROPPED = st.sampled_from(
    [
        json.dumps(text_row(1, chosen="")),
        json.dumps(text_row(1, chosen=" x", rejected=" x")),
        json.dumps(text_row(1, prompt="long " * 60)),
        json.dumps(text_row(1, chosen=" long" * 60)),
    ]
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.one_of(GOOD.map(json.dumps), BAD, DROPPED), min_size=1, max_size=12),
    has_tokens=st.booleans(),
    overlong=st.sampled_from(["drop", "cut-completion", "error"]),
)
def test_every_row_has_exactly_one_fate(byte_tokenizer, tmp_path, rows, has_tokens, overlong):
    opening = [text_row(number) for number in range(13)]  # the shape is told by the first rows: most of them have it
    path = written(tmp_path / "a.jsonl", *opening, *rows)
    data = check_data([path], tokenizer=byte_tokenizer if has_tokens else None, max_length=40, overlong=overlong)
    report = data.report
    assert report.rows == len(rows) + 13
    assert report.rows == report.pairs + sum(report.dropped.values()) + report.num_bad_rows
    assert report.num_errors == report.num_bad_rows == len(report.errors)
    assert report.ok is (report.num_errors == 0)
    assert len(data.store or []) == (report.pairs if has_tokens else 0)


def test_errors_name_file_and_line_first_and_all_are_counted(byte_tokenizer, tmp_path):
    path = written(tmp_path / "a.jsonl", text_row(0), *["{broken"] * 50)
    data = check_data([path], tokenizer=byte_tokenizer)
    assert (data.report.num_errors, len(data.report.errors)) == (50, 50)
    with pytest.raises(DataError) as raised:
        data.raise_if_errors()
    assert raised.value.exit_code == 3
    lines = str(raised.value).splitlines()
    assert lines[0].startswith(f"{path}:2: ")
    assert lines[19].startswith(f"{path}:21: ")
    assert lines[20] == "... and 30 more errors"


def test_as_many_bad_rows_as_allowed_are_left_out_and_told(byte_tokenizer, tmp_path):
    path = written(tmp_path / "a.jsonl", text_row(0), "{broken", "{broken", text_row(3))
    for allowed, ok in ((1, False), (2, True)):
        data = check_data([path], tokenizer=byte_tokenizer, max_bad_rows=allowed)
        assert (data.report.ok, data.report.pairs, data.report.num_errors) == (ok, 2, 2)
    data.raise_if_errors()


def test_an_error_of_a_whole_file_is_never_excused(byte_tokenizer, tmp_path):
    (tmp_path / "b.jsonl").write_bytes("{}".encode("utf-16"))
    data = check_data([written(tmp_path / "a.jsonl", text_row(0)), str(tmp_path / "b.jsonl")], tokenizer=byte_tokenizer, max_bad_rows=9)
    assert (data.report.ok, data.report.rows, data.report.num_bad_rows) == (False, 1, 0)
    with pytest.raises(DataError, match=r"b\.jsonl:1: looks like UTF-16"):
        data.raise_if_errors()


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_rows_is_an_error(byte_tokenizer, tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    data = check_data([str(tmp_path / "a.jsonl")], tokenizer=byte_tokenizer)
    assert (data.report.ok, data.report.rows, data.report.pairs, data.report.num_errors) == (False, 0, 0, 1)


def test_a_missing_path_and_an_unknown_shape_are_in_the_report_and_raise_as_they_are(byte_tokenizer, tmp_path):
    unknown = written(tmp_path / "a.jsonl", {"apple": "1", "pear": "2"})
    for path, said in ((str(tmp_path / "none.jsonl"), "none.jsonl"), (unknown, "columns found")):
        data = check_data([path], tokenizer=byte_tokenizer)
        assert data.report.as_dict()["errors"][0]["kind"] == "unreadable"
        with pytest.raises(DataError, match=said):
            data.raise_if_errors()
    assert data.report.as_dict()["errors"][0]["line"] == 1


def test_files_of_two_shapes_are_an_error_that_names_both(byte_tokenizer, tmp_path):
    paths = [written(tmp_path / "a.jsonl", text_row(0)), written(tmp_path / "b.jsonl", chat_row(0))]
    data = check_data(paths, tokenizer=byte_tokenizer)
    with pytest.raises(DataError) as raised:
        data.raise_if_errors()
    assert str(raised.value).startswith(f"{paths[1]}:1: ")
    assert all(path in str(raised.value) for path in paths)


def test_several_files_are_one_data_set(byte_tokenizer, tmp_path):
    paths = [written(tmp_path / f"{name}.jsonl", *map(text_row, numbers)) for name, numbers in (("b", range(70)), ("a", range(70, 90)))]
    data = check_data(paths, tokenizer=byte_tokenizer)
    assert [item.source.number for item in data.store] == [*range(1, 71), *range(1, 21)]
    assert data.report.rows == 90


def test_duplicates_are_counted_over_prompt_and_both_answers(byte_tokenizer, tmp_path):
    rows = [
        text_row(1),
        text_row(1),
        text_row(1, rejected=" else"),
        {**text_row(1), "prompt": "What is 1? It", "chosen": " is 1"},
        text_row(1),
    ]
    assert check_data([written(tmp_path / "a.jsonl", *rows)], tokenizer=byte_tokenizer).report.warnings == {"duplicates": 2}


@pytest.mark.parametrize(("num", "kinds"), [(1, {"one-row": 1}), (3, {"duplicates": 2, "all-rows-identical": 1})])
def test_one_row_and_equal_rows_are_warned_about(byte_tokenizer, tmp_path, num, kinds):
    data = check_data([written(tmp_path / "a.jsonl", *[text_row(1)] * num)], tokenizer=byte_tokenizer)
    assert (data.report.ok, data.report.warnings) == (True, kinds)


def test_nothing_left_and_all_too_long_are_errors_that_say_why(byte_tokenizer, tmp_path):
    path = written(tmp_path / "a.jsonl", *[text_row(1, chosen=" no")] * 3)
    with pytest.raises(DataError, match=r"a.jsonl:1: no pair is left of 3 rows \(3 identical\)"):
        check_data([path], tokenizer=byte_tokenizer).raise_if_errors()
    path = written(tmp_path / "b.jsonl", *map(text_row, range(3)))
    store = check_data([path], tokenizer=byte_tokenizer).store
    shortest = min(len(item.prompt_ids) + max(map(len, item.completions)) for item in store)
    assert check_data([path], tokenizer=byte_tokenizer, max_length=shortest).report.pairs >= 1
    with pytest.raises(DataError, match=rf"all 3 rows are longer than max_length {shortest - 1}; the shortest has {shortest} tokens"):
        check_data([path], tokenizer=byte_tokenizer, max_length=shortest - 1).raise_if_errors()


def test_cuts_are_counted(byte_tokenizer, tmp_path):
    path = written(
        tmp_path / "a.jsonl", text_row(1), text_row(1, chosen=" the" * 30, rejected=" fox" * 40), text_row(1, chosen=" the" * 30)
    )
    data = check_data([path], tokenizer=byte_tokenizer, max_length=20, overlong="cut-completion")
    whole = check_data([path], tokenizer=byte_tokenizer)
    tokens = data.report.tokens
    assert (tokens["rows_cut"], tokens["answers_cut"], tokens["longest_row"]) == (2, 3, 20)
    assert tokens["tokens_cut"] == whole.report.tokens["total"] - tokens["total"]


def test_held_out_prompts_that_are_trained_on_are_counted(byte_tokenizer, tmp_path):
    train = check_data([written(tmp_path / "a.jsonl", *map(text_row, range(10)))], tokenizer=byte_tokenizer)
    held = [text_row(3, chosen=" other"), text_row(9), text_row(11), text_row(12)]
    held_out = check_data([written(tmp_path / "b.jsonl", *held)], tokenizer=byte_tokenizer, template=train.template)
    for part, other, lines in ((train, held_out, (1, 2)), (held_out, train, (4, 10))):
        file = other.report.files[0]["path"]
        assert overlap(part.traces, other.traces) == Overlap(same=2, near=0, first=tuple(Source(file, line) for line in lines))


def test_conversations_take_the_tokenizers_template_and_without_one_end_with_a_usage_error(chat_tokenizer, byte_tokenizer, tmp_path):
    path = written(tmp_path / "a.jsonl", *map(chat_row, range(3)))
    data = check_data([path], tokenizer=chat_tokenizer)
    assert data.report.template == "the chat template of some/base"
    assert chat_tokenizer.decode(data.store[2].prompt_ids) == "<|im_start|>user\nWhat is 2?<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(ConfigError, match="no chat template"):
        check_data([path], tokenizer=byte_tokenizer)


def test_a_template_error_at_a_late_row_names_its_line(chat_tokenizer, tmp_path):
    chat_tokenizer.chat_template = (
        "{% if '400' in messages[0].content %}{{ raise_exception('no 400') }}{% endif %}" + chat_tokenizer.chat_template
    )
    path = written(tmp_path / "a.jsonl", *map(chat_row, range(420)))
    with pytest.raises(DataError, match=r"a.jsonl:401: .*no 400"):
        check_data([path], tokenizer=chat_tokenizer).raise_if_errors()


def test_without_a_tokenizer_the_structure_alone_is_checked(tmp_path):
    data = check_data([written(tmp_path / "a.jsonl", text_row(0), chat_row(1), text_row(2))], max_length=1)
    assert (data.store, data.template, data.report.tokens) == (None, None, None)
    assert (data.report.pairs, data.report.num_errors, data.report.errors[0].source.number) == (2, 1, 2)


def test_labelled_answers_are_paired_on_request_and_refused_otherwise(byte_tokenizer, tmp_path):
    rows = [{"prompt": f"What is {n // 2}?", "completion": f" {n}", "label": n % 2 == 0} for n in range(8)]
    path = written(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError, match="labelled"):
        check_data([path], tokenizer=byte_tokenizer).raise_if_errors()
    data = check_data([path], tokenizer=byte_tokenizer, pair_labelled=True)
    assert (data.report.ok, data.report.rows, data.report.pairs) == (True, 8, 4)


def test_the_fingerprint_repeats_and_changes_with_bytes_order_limits_template_and_tokenizer_but_not_with_the_folder(build, tmp_path):
    (tmp_path / "x").mkdir()
    one, two = written(tmp_path / "a.jsonl", *map(text_row, range(3))), written(tmp_path / "b.jsonl", *map(text_row, range(3, 5)))
    moved = written(tmp_path / "x" / "c.jsonl", *map(text_row, range(3)))
    changed = written(tmp_path / "d.jsonl", *map(text_row, [0, 1, 3]))

    def fingerprint(paths, kind="byte-level", **options):
        return check_data(paths, tokenizer=build[kind](), **options).fingerprint

    base = fingerprint([one, two])
    assert json.loads(json.dumps(base)) == base == fingerprint([moved, two])
    others = [
        fingerprint([two, one]),
        fingerprint([changed, two]),
        fingerprint([one, two], max_length=50),
        fingerprint([one, two], overlong="error"),
        fingerprint([one, two], template="chatml"),
        fingerprint([one, two], kind="sentencepiece"),
    ]
    assert base not in others
    assert len({json.dumps(item) for item in others}) == len(others)


def test_no_paths_are_a_usage_error():
    with pytest.raises(ConfigError, match="no data"):
        check_data([])


def test_real_transcripts_go_through_whole_and_come_back_as_their_text(byte_tokenizer, shared_data):
    import gzip

    path = shared_data / "hh-harmless-pairs.jsonl.gz"
    data = check_data([str(path)], tokenizer=byte_tokenizer)
    report = data.report
    assert report.rows == report.pairs + sum(report.dropped.values()) + report.num_bad_rows == 1300
    assert report.ok
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line) for line in lines]
    for item in data.store[:50]:
        for ids, side in zip(item.completions, ("chosen", "rejected"), strict=True):
            decoded = byte_tokenizer.decode([*item.prompt_ids, *ids]).removeprefix("<s>").removesuffix("</s>")
            assert decoded.split() == texts[item.source.number - 1][side].split()

"""The same data for objectives that read pairs, labelled answers or rankings: tokens, counts, limits, refusals."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo.core.tokens import TokenizedExample
from orpo.data.checks import CheckedData, check_data
from orpo.errors import DataError

THINKING = "{% for m in messages %}<|im_start|>{{ m['content'].split('</think>')[-1] }}<|im_end|>{% endfor %}"
QUESTIONS = ["What is the capital?", "say </s> now", "hello <|im_"]
ANSWERS = [" It is Paris", " the sea", "end|> no </s>", " is 1/2 cup"]


def written(path: Path, *rows: Any) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def labelled_row(prompt: str, text: str, label: bool, *, is_chat: bool = False) -> dict[str, Any]:
    chat = {"prompt": turn("user", prompt), "completion": turn("assistant", text)}
    return {**(chat if is_chat else {"prompt": prompt, "completion": text}), "label": label}


def pair_row(prompt: str, chosen: str, rejected: str, *, is_chat: bool = False) -> dict[str, Any]:
    if not is_chat:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return {"prompt": turn("user", prompt), "chosen": turn("assistant", chosen), "rejected": turn("assistant", rejected)}


def ranked_row(prompt: str, answers: list[str], scores: list[Any], *, is_chat: bool = False) -> dict[str, Any]:
    return {"prompt": turn("user", prompt) if is_chat else prompt, "responses": answers, "scores": scores}


def rows_of(item: TokenizedExample) -> list[list[int]]:
    return [[*item.prompt_ids.tolist(), *ids.tolist()] for ids in item.completions]


def checked(path: str, **options: Any) -> CheckedData:
    data = check_data([path], **options)
    data.raise_if_errors()
    return data


@pytest.mark.parametrize("is_chat", [False, True])
def test_labelled_answers_have_the_tokens_that_the_same_texts_have_in_a_pair(chat_tokenizer, tmp_path, is_chat):
    pairs = written(tmp_path / "p.jsonl", *(pair_row(q, ANSWERS[0], ANSWERS[2], is_chat=is_chat) for q in QUESTIONS))
    answers = [labelled_row(q, text, text == ANSWERS[0], is_chat=is_chat) for q in QUESTIONS for text in (ANSWERS[0], ANSWERS[2])]
    options = {"tokenizer": chat_tokenizer, "template": "tokenizer" if is_chat else "raw"}
    of_pairs = checked(pairs, **options).store
    found = checked(written(tmp_path / "l.jsonl", *answers), reads="labelled", **options).store
    assert [row for item in found for row in rows_of(item)] == [row for item in of_pairs for row in rows_of(item)]
    assert [item.labels for item in found] == [(True,), (False,)] * 3
    assert all(len(item.completions) == 1 and item.scores == () for item in found)
    if is_chat:
        assert [item.prompt_ids.tolist() for item in found[::2]] == [item.prompt_ids.tolist() for item in of_pairs]


@pytest.mark.parametrize("is_chat", [False, True])
def test_the_answers_of_a_ranking_have_the_tokens_that_they_have_in_pairs(chat_tokenizer, tmp_path, is_chat):
    options = {"tokenizer": chat_tokenizer, "template": "tokenizer" if is_chat else "raw"}
    ranked = written(tmp_path / "r.jsonl", *(ranked_row(q, ANSWERS, [0.5, -2, 7, 3], is_chat=is_chat) for q in QUESTIONS))
    in_order = [ANSWERS[place] for place in (2, 3, 0, 1)]
    pairs = written(tmp_path / "p.jsonl", *(pair_row(q, *two, is_chat=is_chat) for q in QUESTIONS for two in (in_order[:2], in_order[2:])))
    found = checked(ranked, reads="rankings", **options).store
    of_pairs = [row for item in checked(pairs, **options).store for row in rows_of(item)]
    assert [row for item in found for row in rows_of(item)] == of_pairs
    assert [(item.scores, item.labels) for item in found] == [((7.0, 3.0, 0.5, -2.0), ())] * 3


@pytest.mark.parametrize(("reads", "labels"), [("labelled", (True, False)), ("rankings", ())])
def test_pairs_are_pairs_to_every_objective_with_labels_for_those_that_read_them(byte_tokenizer, tmp_path, reads, labels):
    path = written(tmp_path / "p.jsonl", *(pair_row(q, ANSWERS[0], ANSWERS[1]) for q in QUESTIONS), pair_row("q", " x", " x"))
    plain, found = checked(path, tokenizer=byte_tokenizer), checked(path, tokenizer=byte_tokenizer, reads=reads)
    assert [rows_of(item) for item in found.store] == [rows_of(item) for item in plain.store]
    assert [(item.labels, item.scores) for item in found.store] == [(labels, ())] * 3
    assert (found.report.dropped, found.report.warnings, found.report.noun) == (plain.report.dropped, plain.report.warnings, "pair")
    assert found.report.dropped == {"identical": 1}


def test_paired_labelled_answers_are_pairs_to_every_objective(byte_tokenizer, tmp_path):
    path = written(tmp_path / "l.jsonl", *(labelled_row(f"q {n // 2}?", f" {n}", n % 2 == 0) for n in range(8)))
    for reads, labels in (("labelled", (True, False)), ("rankings", ()), ("pairs", ())):
        data = checked(path, tokenizer=byte_tokenizer, reads=reads, pair_labelled=True)
        assert [(len(item.completions), item.labels) for item in data.store] == [(2, labels)] * 4


def test_rankings_are_refused_where_labels_are_read_with_what_can_be_done(byte_tokenizer, tmp_path):
    path = written(tmp_path / "r.jsonl", ranked_row("q", ["a", "b"], [1, 2]))
    with pytest.raises(DataError, match=r"r.jsonl:1: ranked data: .* do not say what is desirable") as raised:
        checked(path, tokenizer=byte_tokenizer, reads="labelled")
    assert "prompt, completion and label" in raised.value.fix
    assert raised.value.exit_code == 3


def test_labelled_answers_are_refused_where_rankings_are_read_and_pairing_is_offered(byte_tokenizer, tmp_path):
    path = written(tmp_path / "l.jsonl", labelled_row("q", "a", True), labelled_row("q", "b", False))
    with pytest.raises(DataError, match="labelled data") as raised:
        checked(path, tokenizer=byte_tokenizer, reads="rankings")
    assert "1 of 1 prompts have both labels: pass --pair-labelled" in raised.value.fix


TEXTS = st.sampled_from([" a", " b", " a long answer " * 4, "", " a</s>"])
LABELLED = st.builds(labelled_row, st.sampled_from(["q?", "", "long " * 60]), TEXTS, st.booleans())
RANKED = st.integers(0, 4).flatmap(
    lambda num: st.builds(
        ranked_row,
        st.sampled_from(["q?", "", "long " * 60]),
        st.lists(TEXTS, min_size=num, max_size=num),
        st.lists(st.sampled_from([None, 1, 2, 3, "x"]), min_size=num, max_size=num),
    )
)
OPENING = {
    "labelled": [labelled_row(f"q {n}?", " a", n % 2 == 0) for n in range(13)],
    "rankings": [ranked_row(f"q {n}?", [" a", " b"], [1, 2]) for n in range(13)],
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    reads=st.sampled_from(["labelled", "rankings"]),
    has_tokens=st.booleans(),
    overlong=st.sampled_from(["drop", "cut-completion", "error"]),
)
def test_every_row_has_exactly_one_fate_and_every_kept_answer_is_counted(byte_tokenizer, tmp_path, data, reads, has_tokens, overlong):
    rows = data.draw(st.lists((LABELLED if reads == "labelled" else RANKED).map(json.dumps) | st.just("{cut"), max_size=12))
    path = written(tmp_path / "a.jsonl", *OPENING[reads], *rows)
    found = check_data([path], tokenizer=byte_tokenizer if has_tokens else None, max_length=30, overlong=overlong, reads=reads)
    report, store = found.report, found.store or []
    assert report.rows == len(rows) + 13 == report.pairs + sum(report.dropped.values()) + report.num_bad_rows
    assert len(store) == (report.pairs if has_tokens else 0)
    assert len(found.traces) == report.pairs
    if reads == "labelled":
        assert report.answers["desirable"] + report.answers["undesirable"] == report.pairs
        assert not has_tokens or report.answers["desirable"] == sum(item.labels == (True,) for item in store)
        return
    assert sum(report.answers["lengths"].values()) == report.pairs
    sizes = Counter(str(len(item.completions)) for item in store)
    assert not has_tokens or report.answers["lengths"] == sizes
    for item in store:
        assert len(item.completions) == len(item.scores) == len({ids.tobytes() for ids in item.completions}) >= 2
        assert sorted(set(item.scores), reverse=True) == list(item.scores)


def test_a_labelled_answer_that_is_too_long_is_dropped_cut_or_an_error(byte_tokenizer, tmp_path):
    rows = [labelled_row("q?", " a", True), labelled_row("q?", " the" * 30, False)]
    path = written(tmp_path / "l.jsonl", *rows)
    options = {"tokenizer": byte_tokenizer, "reads": "labelled", "max_length": 20}
    assert checked(path, **options).report.dropped == {"too-long": 1}
    cut = checked(path, **options, overlong="cut-completion")
    assert [(sum(map(len, rows_of(item))), item.labels) for item in cut.store][1] == (20, (False,))
    assert (cut.report.tokens["rows_cut"], cut.report.tokens["answers_cut"]) == (1, 1)
    with pytest.raises(DataError, match=r"l.jsonl:2: prompt and answer have"):
        checked(path, **options, overlong="error")


def test_a_ranking_is_too_long_when_any_answer_is_and_what_a_cut_makes_equal_is_counted(byte_tokenizer, tmp_path):
    rows = [
        ranked_row("q?", [" a", " b", " the" * 30], [3, 2, 1]),
        ranked_row("q?", [" the" * 30, " a", " the" * 31, " the" * 32], [4, 3, 2, 1]),
        ranked_row("q?", [" a", " b"], [3, 2]),
    ]
    path = written(tmp_path / "r.jsonl", *rows)
    options = {"tokenizer": byte_tokenizer, "reads": "rankings", "max_length": 20}
    assert checked(path, **options).report.dropped == {"too-long": 2}
    cut = checked(path, **options, overlong="cut-completion").report
    assert (cut.warnings["identical-after-cut"], cut.answers) == (2, {"lengths": {"2": 2, "3": 1}})
    assert (cut.tokens["rows_cut"], cut.tokens["answers_cut"], cut.tokens["longest_row"]) == (2, 4, 20)


def test_ranked_answers_that_a_template_makes_equal_are_left_out_and_counted(byte_tokenizer, tmp_path):
    byte_tokenizer.chat_template = THINKING
    answers = ["<think>x</think>a", "<think>y</think>a", "b"]
    rows = [ranked_row("q?", answers, [3, 2, 1], is_chat=True), ranked_row("q?", answers[:2], [3, 2], is_chat=True)]
    data = checked(written(tmp_path / "r.jsonl", *rows), tokenizer=byte_tokenizer, reads="rankings")
    assert (data.report.warnings["identical-tokens"], data.report.dropped) == (1, {"identical-tokens": 1})
    assert (data.store[0].scores, data.store.scores.tolist()) == ((3.0, 1.0), [3.0, 1.0])
    assert data.report.first_dropped[0].message == "the answers are the same once the template is applied"


def test_the_fingerprint_says_what_is_read_unless_it_is_pairs(byte_tokenizer, tmp_path):
    path = written(tmp_path / "p.jsonl", pair_row("q", " a", " b"))
    found = {reads: checked(path, tokenizer=byte_tokenizer, reads=reads).fingerprint for reads in ("pairs", "labelled", "rankings")}
    assert [found[reads].get("reads") for reads in found] == [None, "labelled", "rankings"]
    assert {key: value for key, value in found["labelled"].items() if key != "reads"} == found["pairs"]


def test_the_report_of_pairs_has_no_new_keys(byte_tokenizer, tmp_path):
    path = written(tmp_path / "p.jsonl", pair_row("q", " a", " b"))
    assert not {"reads", "answers"} & checked(path, tokenizer=byte_tokenizer).report.as_dict().keys()


def test_lopsided_labels_are_told_with_weights_and_possible_pairs_are_those_that_pairing_gives(byte_tokenizer, tmp_path):
    labels = [n % 5 == 0 for n in range(40)]
    path = written(tmp_path / "l.jsonl", *(labelled_row(f"q {n // 4}?", f" {n}", label) for n, label in enumerate(labels)))
    report = checked(path, tokenizer=byte_tokenizer, reads="labelled").report
    paired = checked(path, tokenizer=byte_tokenizer, pair_labelled=True).report
    assert report.answers == {
        "desirable": 8, "undesirable": 32, "desirable_weight": 4.0, "undesirable_weight": 1.0, "possible_pairs": paired.pairs,
    }  # fmt: skip
    assert report.warnings == {"possible-pairs": paired.pairs, "lopsided-labels": 1}
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()


def test_pairs_of_two_files_or_of_other_tools_are_not_offered(byte_tokenizer, chat_tokenizer, tmp_path):
    good, bad = (labelled_row("q", text, text == " a") for text in (" a", " b"))
    paths = [written(tmp_path / "a.jsonl", good), written(tmp_path / "b.jsonl", bad)]
    assert check_data(paths, tokenizer=byte_tokenizer, reads="labelled").report.answers["possible_pairs"] == 0
    rows = [{**labelled_row("q", "a", label, is_chat=True), "tools": [{"name": name}]} for label, name in ((True, "f"), (False, "g"))]
    assert checked(written(tmp_path / "c.jsonl", *rows), tokenizer=chat_tokenizer, reads="labelled").report.answers["possible_pairs"] == 0


def test_equal_answers_with_equal_labels_are_duplicates_and_with_other_labels_are_not(byte_tokenizer, tmp_path):
    rows = [labelled_row("q", " a", label) for label in (True, True, False)]
    assert checked(written(tmp_path / "l.jsonl", *rows), tokenizer=byte_tokenizer, reads="labelled").report.warnings["duplicates"] == 1


def test_messages_name_what_is_read(byte_tokenizer, tmp_path):
    path = written(tmp_path / "l.jsonl", *(labelled_row("q", " ", True) for _ in range(3)))
    with pytest.raises(DataError, match=r"no labelled answer is left of 3 rows \(3 empty-answer\)"):
        checked(path, tokenizer=byte_tokenizer, reads="labelled")
    path = written(tmp_path / "r.jsonl", ranked_row("q", [" a", " b"], [1, 2]))
    report = checked(path, tokenizer=byte_tokenizer, reads="rankings").report
    assert report.first_warnings[0].message == "there is a single ranking"


def test_token_statistics_go_by_label_and_by_rank(byte_tokenizer, tmp_path):
    rows = [labelled_row("q?", " a" * (n + 1), n % 3 == 0) for n in range(7)]
    data = checked(written(tmp_path / "l.jsonl", *rows), tokenizer=byte_tokenizer, reads="labelled")
    lengths = {label: [len(item.completions[0]) for item in data.store if item.labels == (label,)] for label in (True, False)}
    tokens = data.report.tokens
    assert [tokens[name]["total"] for name in ("desirable", "undesirable")] == [sum(lengths[True]), sum(lengths[False])]
    assert tokens["total"] == sum(item.num_tokens for item in data.store)
    assert "chosen" not in tokens
    rows = [ranked_row("q?", [" a" * 9, " b", " c c"], [2, 3, 1])]
    data = checked(written(tmp_path / "r.jsonl", *rows), tokenizer=byte_tokenizer, reads="rankings")
    best, *others = map(len, data.store[0].completions)
    tokens = data.report.tokens
    assert (tokens["best"]["total"], tokens["others"]["total"], tokens["others"]["max"]) == (best, sum(others), max(others))
    assert tokens["longest_row"] == len(data.store[0].prompt_ids) + max(others)


@pytest.mark.parametrize("reads", ["labelled", "rankings"])
def test_the_memory_of_a_check_grows_by_a_few_numbers_a_row(tmp_path, reads):
    def peak(num: int) -> float:
        path = written(tmp_path / f"{num}.jsonl", *(make(n) for n in range(num)))
        tracemalloc.start()
        try:
            assert check_data([path], reads=reads).report.pairs == num
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def make(n: int) -> dict[str, Any]:
        if reads == "labelled":
            return labelled_row(f"q {n // 2}? " * 20, f" {n}" * 20, n % 2 == 0)
        return ranked_row(f"q {n}? " * 20, [f" {n} {k}" * 10 for k in range(4)], [1, 2, 3, 4])

    peak(300)  # imports and caches are not the pass
    assert peak(4000) - peak(1000) < 3000 * 128  # measured: about 100 bytes a row; a row of these files has 300 to 500


def test_real_labelled_answers_are_read_as_they_are(chat_tokenizer, shared_data):
    path = shared_data / "labelled-answers.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    data = checked(str(path), tokenizer=chat_tokenizer, reads="labelled")
    assert (data.report.rows, data.report.pairs, data.report.dropped, data.report.noun) == (150, 150, {}, "labelled answer")
    assert [item.labels for item in data.store] == [(row["label"],) for row in rows]
    num_good = sum(row["label"] for row in rows)
    assert (data.report.answers["desirable"], data.report.answers["undesirable"]) == (num_good, 150 - num_good)
    assert data.report.answers["possible_pairs"] == 0
    control = chat_tokenizer.all_special_tokens
    for item, row in zip(data.store, rows, strict=True):
        if not any(token in message["content"] for token in control for message in row["messages"]):
            text = chat_tokenizer.apply_chat_template(row["messages"], tokenize=False).rstrip()
            assert rows_of(item) == [chat_tokenizer(text, add_special_tokens=False)["input_ids"]]

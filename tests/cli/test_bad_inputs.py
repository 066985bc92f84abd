"""Bad data and settings, as a user would give them: each gets its error with place and exit code, and nothing is written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD = {"prompt": "what is the capital?", "chosen": " it is a large city.", "rejected": " no idea at all."}
USER, ASSISTANT = {"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "a large city."}
CHAT = {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "no idea."}]}


def lines(*rows: Any) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def good(num: int) -> list[dict[str, str]]:
    return [{**GOOD, "prompt": f"what is the capital of land {i}?"} for i in range(num)]


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


# name, file name, content, expected beginning of stderr, words that must appear
DATA_ERRORS: list[tuple[str, str, bytes, str, tuple[str, ...]]] = [
    ("empty file", "a.jsonl", b"", "a.jsonl", ("empty",)),
    ("blank lines only", "a.jsonl", b"\n\n  \n", "a.jsonl", ("blank",)),
    ("utf-16", "a.jsonl", lines(*good(3)).decode().encode("utf-16"), "a.jsonl", ("UTF-16",)),
    (
        "a byte that is not utf-8",
        "a.jsonl",
        lines(*good(2)) + b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}\n',
        "a.jsonl:3",
        ("UTF-8",),
    ),
    ("truncated gzip", "a.jsonl.gz", gzip.compress(lines(*good(400)))[:-40], "a.jsonl.gz", ("gz",)),
    ("not gzip", "a.jsonl.gz", lines(*good(2)), "a.jsonl.gz", ("gzip",)),
    ("malformed line", "a.jsonl", lines(*good(2), '{"prompt": "x", "chosen" "y"}', *good(1)), "a.jsonl:3", ()),
    ("single quotes", "a.jsonl", lines(good(1)[0], "{'prompt': 'x', 'chosen': 'y', 'rejected': 'z'}"), "a.jsonl:2", ()),
    ("cut last line", "a.jsonl", lines(*good(3))[:-30], "a.jsonl:3", ()),
    ("trailing comma", "a.jsonl", lines(good(1)[0], json.dumps(GOOD)[:-1] + ",}"), "a.jsonl:2", ()),
    ("row without rejected", "a.jsonl", lines(*good(2), without(GOOD, "rejected")), "a.jsonl:3", ("rejected",)),
    ("row without chosen", "a.jsonl", lines(*good(2), without(GOOD, "chosen")), "a.jsonl:3", ("chosen",)),
    ("row without prompt", "a.jsonl", lines(*good(2), without(GOOD, "prompt")), "a.jsonl:3", ("prompt",)),
    (
        "missing column everywhere",
        "a.jsonl",
        lines({"question": "a", "good": "b"}, {"question": "c", "good": "d"}),
        "a.jsonl",
        ("question", "--columns"),
    ),
    ("null answer", "a.jsonl", lines(good(1)[0], {**GOOD, "rejected": None}), "a.jsonl:2", ("rejected", "null")),
    ("number for text", "a.jsonl", lines(good(1)[0], {**GOOD, "chosen": 7}), "a.jsonl:2", ("chosen",)),
    ("list for text", "a.jsonl", lines(good(1)[0], {**GOOD, "chosen": ["a", "b"]}), "a.jsonl:2", ("chosen",)),
    ("boolean for text", "a.jsonl", lines(good(1)[0], {**GOOD, "prompt": True}), "a.jsonl:2", ("prompt",)),
    ("object for text", "a.jsonl", lines(good(1)[0], {**GOOD, "prompt": {"text": "x"}}), "a.jsonl:2", ("prompt",)),
    ("lone surrogate", "a.jsonl", lines(good(1)[0], '{"prompt": "x", "chosen": "\\ud800", "rejected": "z"}'), "a.jsonl:2", ("surrogate",)),
    (
        "duplicate keys",
        "a.jsonl",
        lines(good(1)[0], '{"prompt": "x", "chosen": "y", "chosen": "w", "rejected": "z"}'),
        "a.jsonl:2",
        ("chosen",),
    ),
    ("rows that are arrays", "a.jsonl", lines(["a", "b", "c"], ["d", "e", "f"]), "a.jsonl:1", ("object",)),
    ("rows that are strings", "a.jsonl", lines('"just text"'), "a.jsonl:1", ("object",)),
    ("csv named jsonl", "a.jsonl", b"prompt,chosen,rejected\nx,y,z\n", "a.jsonl:1", ("csv",)),
    ("csv without header", "a.csv", b"x,y,z\nu,v,w\n", "a.csv", ()),
    ("csv row with too many cells", "a.csv", b"prompt,chosen,rejected\nx,y,z\nx,y,z,w\n", "a.csv:3", ()),
    ("csv row with too few cells", "a.csv", b"prompt,chosen,rejected\nx,y,z\nx,y\n", "a.csv:3", ()),
    ("not a json value", "a.json", b"hello there", "a.json:1", ()),
    ("json array cut short", "a.json", json.dumps(good(3)).encode()[:-20], "a.json", ()),
    ("json object that holds no rows", "a.json", b'{"version": 1, "rows": 3}', "a.json", ()),
    ("json array of numbers", "a.json", b"[1, 2, 3]", "a.json:1", ("object",)),
    ("nan literal", "a.jsonl", lines(good(1)[0], '{"prompt": "x", "chosen": "y", "rejected": "z", "score": NaN}'), "a.jsonl:2", ("NaN",)),
    ("very deep nesting", "a.jsonl", lines(good(1)[0], '{"prompt": ' + "[" * 5000 + "]" * 5000 + "}"), "a.jsonl:2", ()),
    ("not a parquet file", "a.parquet", b"this is no parquet file at all", "a.parquet", ()),
    ("unknown role", "a.jsonl", lines(CHAT, {**CHAT, "prompt": [{"role": "wizard", "content": "x"}]}), "a.jsonl:2", ("wizard",)),
    ("message without content", "a.jsonl", lines(CHAT, {**CHAT, "prompt": [{"role": "user"}]}), "a.jsonl:2", ("content",)),
    ("message without role", "a.jsonl", lines(CHAT, {**CHAT, "prompt": [{"content": "x"}]}), "a.jsonl:2", ("role",)),
    ("empty message list", "a.jsonl", lines(CHAT, {**CHAT, "chosen": []}), "a.jsonl:2", ()),
    ("null content", "a.jsonl", lines(CHAT, {**CHAT, "chosen": [{"role": "assistant", "content": None}]}), "a.jsonl:2", ("content",)),
    ("mixed chat and plain rows", "a.jsonl", lines(CHAT, GOOD), "a.jsonl:2", ()),
    ("answer by the user", "a.jsonl", lines(CHAT, {**CHAT, "chosen": [{"role": "user", "content": "x"}]}), "a.jsonl:2", ()),
    ("images", "a.jsonl", lines({**GOOD, "images": ["a.png"]}, {**GOOD, "images": ["b.png"]}), "a.jsonl", ("image", "supported")),
    ("empty prompt", "a.jsonl", lines(good(1)[0], {**GOOD, "prompt": ""}), "a.jsonl:2", ("prompt",)),
    (
        "nothing in common",
        "a.jsonl",
        lines({"chosen": "abc def", "rejected": "xyz uvw"}, {"chosen": "k l m", "rejected": "n o p"}),
        "a.jsonl:1",
        (),
    ),
    (
        "labelled rows",
        "a.jsonl",
        lines(*({"prompt": f"p {i // 2}", "completion": f"c {i}", "label": i % 2 == 0} for i in range(6))),
        "a.jsonl",
        ("--pair-labelled",),
    ),
    ("all answers empty", "a.jsonl", lines({**GOOD, "chosen": ""}, {**GOOD, "chosen": " "}), "a.jsonl", ()),
    ("all pairs identical answers", "a.jsonl", lines(*({**row, "rejected": row["chosen"]} for row in good(3))), "a.jsonl", ()),
    ("unknown file type", "a.docx", b"PK\x03\x04", "a.docx", ("jsonl",)),
]


@pytest.mark.parametrize(("name", "file", "content", "place", "words"), DATA_ERRORS, ids=[case[0] for case in DATA_ERRORS])
def test_bad_data_is_named_with_its_place_and_nothing_is_written(
    orpo: Callable[..., Any],
    tmp_path: Path,
    tiny_chat_llama: Path,
    name: str,
    file: str,
    content: bytes,
    place: str,
    words: tuple[str, ...],
) -> None:
    (tmp_path / file).write_bytes(content)
    outcome = orpo("train", "--model", tiny_chat_llama, "--data", file, "--output-dir", "run")
    assert outcome.exit_code == 3, outcome.text
    assert outcome.err.startswith(place), outcome.err
    for word in words:
        assert word.lower() in outcome.err.lower(), outcome.err
    assert "Traceback" not in outcome.text
    assert [path.name for path in tmp_path.iterdir()] == [file]


# arguments after `orpo train`, exit code, words; {model} and {data} are good ones
SETTINGS_ERRORS: list[tuple[str, int, tuple[str, ...]]] = [
    ("--data {data}", 2, ("model",)),
    ("--model {model}", 2, ("data",)),
    ("--model {model} --data nothere.jsonl", 3, ("nothere.jsonl",)),
    ("--model {model} --data good.jsonk", 3, ("good.jsonl",)),
    ("--model nowhere/at/all --data {data}", 2, ("nowhere/at/all",)),
    ("--model {data} --data {data}", 2, ("file",)),
    ("--model . --data {data}", 2, ("config",)),
    ("--model {model} --data {data} --beta -1", 2, ("beta",)),
    ("--model {model} --data {data} --beta nan", 2, ("beta",)),
    ("--model {model} --data {data} --beta abc", 2, ("beta",)),
    ("--model {model} --data {data} --odds-temperature 0", 2, ("odds_temperature",)),
    ("--model {model} --data {data} --objective sft --beta 0.1", 2, ("beta", "sft")),
    ("--model {model} --data {data} --objective orppo", 2, ("orpo",)),
    ("--model {model} --data {data} --preset trk", 2, ("trl",)),
    ("--model {model} --data {data} --nll-over everything", 2, ("nll_over",)),
    ("--model {model} --data {data} --learning-rate 0", 2, ("learning_rate",)),
    ("--model {model} --data {data} --learning-rate -1e-5", 2, ("learning_rate",)),
    ("--model {model} --data {data} --learning-rate 30", 2, ("learning_rate",)),
    ("--model {model} --data {data} --learning-rate inf", 2, ("learning_rate",)),
    ("--model {model} --data {data} --max-length 1", 2, ("max_length",)),
    ("--model {model} --data {data} --max-length 4096", 2, ("max_length", "2,048")),
    ("--model {model} --data {data} --max-length 2", 3, ("max_length",)),
    ("--model {model} --data {data} --pairs-per-step 0", 2, ("pairs_per_step",)),
    ("--model {model} --data {data} --num-train-epochs 0", 2, ("num_train_epochs",)),
    ("--model {model} --data {data} --max-steps 0", 2, ("max_steps",)),
    ("--model {model} --data {data} --max-steps 3 --num-train-epochs 2", 2, ("max_steps", "num_train_epochs")),
    ("--model {model} --data {data} --tokens-per-micro-batch 3", 2, ("tokens_per_micro_batch", "longest")),
    ("--model {model} --data {data} --tokens-per-micro-batch lots", 2, ("tokens_per_micro_batch",)),
    ("--model {model} --data {data} --lora-r 8", 2, ("lora_r", "use_peft")),
    ("--model {model} --data {data} --use-peft --lora-dropout 1.5", 2, ("lora_dropout",)),
    ("--model {model} --data {data} --use-peft --lora-target-modules nothing_here", 2, ("nothing_here",)),
    ("--model {model} --data {data} --output-dir good.jsonl", 2, ("good.jsonl", "file")),
    ("--model {model} --data {data} --output-dir .", 2, ("not empty",)),
    ("--model {model} --data {data} --eval-steps 5", 2, ("eval_steps",)),
    ("--model {model} --data {data} --eval-data {data}", 2, ("eval_data",)),
    ("--model {model} --data {data} --holdout 6", 2, ("holdout",)),
    ("--model {model} --data {data} --report-to wandbb", 2, ("wandb",)),
    ("--model {model} --data {data} --seed -3", 2, ("seed",)),
    ("--model {model} --data {data} --dtype float16", 2, ("dtype",)),
    ("--model {model} --data {data} --template nothere.jinja", 2, ("nothere.jinja",)),
    ("--model {model} --data {data} --template tokenizer", 2, ("template",)),
    ("--model {model} --data {data} --columns prompt=nothing", 3, ("nothing",)),
    ("--model {model} --data {data} --columns prompt", 2, ("columns",)),
    ("--model {model} --data {data} --load-in-4bit", 2, ("load_in_4bit",)),
    ("--model {model} --data {chat}", 2, ("template", "chatml")),
    ("--model {model} --data {data} --warmup-steps 50 --max-steps 3", 2, ("warmup_steps", "max_steps")),
    ("--model {model} --data {data} --unknown-flag 3", 2, ("--unknown-flag",)),
    ("nothere.yaml", 2, ("nothere.yaml",)),
]


@pytest.mark.parametrize(
    ("arguments", "code", "words"), SETTINGS_ERRORS, ids=[case[0].replace("--model {model} --data {data} ", "") for case in SETTINGS_ERRORS]
)
def test_a_bad_setting_is_refused_before_anything_is_written(
    orpo: Callable[..., Any], tmp_path: Path, tiny_llama: Path, arguments: str, code: int, words: tuple[str, ...]
) -> None:
    (tmp_path / "good.jsonl").write_bytes(lines(*good(6)))
    (tmp_path / "chat.jsonl").write_bytes(lines(CHAT, CHAT))
    before = sorted(path.name for path in tmp_path.iterdir())
    outcome = orpo("train", *arguments.format(model=tiny_llama, data="good.jsonl", chat="chat.jsonl").split())
    assert outcome.exit_code == code, outcome.text
    for word in words:
        assert word in outcome.err, outcome.err
    assert "Traceback" not in outcome.text
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# what is accepted or dropped, and how it is counted: name, file, content, (pairs, dropped, warnings)
COUNTED: list[tuple[str, str, bytes, int, set[str], set[str]]] = [
    ("byte order mark", "a.jsonl", b"\xef\xbb\xbf" + lines(*good(3)), 3, set(), set()),
    ("crlf", "a.jsonl", lines(*good(3)).replace(b"\n", b"\r\n"), 3, set(), set()),
    ("json array", "a.json", json.dumps(good(3), indent=1).encode(), 3, set(), set()),
    ("json array named jsonl", "a.jsonl", json.dumps(good(3)).encode(), 3, set(), set()),
    ("data object", "a.json", json.dumps({"data": good(3)}).encode(), 3, set(), set()),
    ("gzip", "a.jsonl.gz", gzip.compress(lines(*good(3))), 3, set(), set()),
    ("csv", "a.csv", b"prompt,chosen,rejected\nx1,y,z\nx2,y,z\n", 2, set(), set()),
    ("tsv", "a.tsv", b"prompt\tchosen\trejected\nx1\ty\tz\nx2\ty\tz\n", 2, set(), set()),
    ("chosen equals rejected", "a.jsonl", lines(*good(2), {**GOOD, "rejected": GOOD["chosen"]}), 2, {"identical"}, set()),
    ("empty answer", "a.jsonl", lines(*good(2), {**GOOD, "rejected": "  "}), 2, {"empty-answer"}, set()),
    ("duplicates", "a.jsonl", lines(*good(2), *good(2)), 4, set(), {"duplicates"}),
    ("one row", "a.jsonl", lines(*good(1)), 1, set(), {"one-row"}),
    ("control characters", "a.jsonl", lines(*good(2), {**GOOD, "chosen": "a\u0007b"}), 3, set(), {"control-characters"}),
]


@pytest.mark.parametrize(("name", "file", "content", "pairs", "dropped", "warnings"), COUNTED, ids=[case[0] for case in COUNTED])
def test_what_is_accepted_or_dropped_is_counted(
    orpo: Callable[..., Any], tmp_path: Path, name: str, file: str, content: bytes, pairs: int, dropped: set[str], warnings: set[str]
) -> None:
    (tmp_path / file).write_bytes(content)
    outcome = orpo("check", file, "--json")
    assert outcome.exit_code == 0, outcome.text
    report = json.loads(outcome.out)
    assert report["pairs"] == pairs
    assert set(report["dropped"]) == dropped
    assert warnings <= set(report["warnings"])
    assert report["rows"] == report["pairs"] + sum(report["dropped"].values())


def test_there_are_at_least_eighty_kinds() -> None:
    assert len(DATA_ERRORS) + len(SETTINGS_ERRORS) + len(COUNTED) >= 100

"""Prompts out of files: every way in which they may stand there, and what is said where they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orpo.core.records import Conversation
from orpo.data.columns import parse_columns
from orpo.data.prompts import read_prompts
from orpo.errors import DataError

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "why?"}]
ANSWER = {"role": "assistant", "content": "because"}


def said(prompt: str | Conversation) -> Any:
    """The prompt in few signs: text, or (role's first letter, content) of each turn."""
    return prompt if isinstance(prompt, str) else [(turn.role[0], turn.content) for turn in prompt]


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": " as it stands\n"}, " as it stands\n"),
        ({"prompt": "x", "completion": "y", "label": True}, "x"),
        ({"prompt": "x", "chosen": "y", "rejected": "z"}, "x"),
        ({"prompt": TURNS}, [("u", "hi"), ("a", "hello"), ("u", "why?")]),
        ({"prompt": json.dumps(TURNS[:1])}, [("u", "hi")]),
        ({"prompt": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant:"}, [("u", "hi"), ("a", "hello"), ("u", "why?")]),
        ({"prompt": "hi", "system": "be kind"}, [("s", "be kind"), ("u", "hi")]),
        ({"instruction": "add", "input": "1 2", "output": "3"}, [("u", "add\n1 2")]),
        ({"instruction": "add", "history": [["a", "b"]]}, [("u", "a"), ("a", "b"), ("u", "add")]),
        ({"messages": [*TURNS, ANSWER]}, [("u", "hi"), ("a", "hello"), ("u", "why?")]),
        ({"conversations": [{"from": "human", "value": "hi"}], "id": 1}, [("u", "hi")]),
        ({"question": "why?"}, [("u", "why?")]),
        ({"query": "why?"}, [("u", "why?")]),
        # preference data, where the prompt is found as in training
        ({"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"}, [("u", "hi")]),
        ({"source": "s", "prompt": "hi", "question": "hi", "chosen": [TURNS[0], ANSWER], "rejected": TURNS[:2]}, [("u", "hi")]),
    ],
)
def test_a_prompt_is_found_by_the_name_of_its_column(tmp_path: Path, row: dict[str, Any], expected: Any) -> None:
    path = write(tmp_path / "p.jsonl", row, row)
    prompts = read_prompts(path).prompts
    assert [said(prompt.prompt) for prompt in prompts] == [expected, expected]
    assert [str(prompt.source) for prompt in prompts] == [f"{path}:1", f"{path}:2"]


def test_json_csv_and_text_files_hold_prompts_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "one"}, {"prompt": "two"}]))
    (tmp_path / "a.csv").write_text('instruction,dataset\n"one, or\ntwo",d\nthree,e\n')
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n  \nt\xc3\xa4glich\n")
    assert [said(prompt.prompt) for prompt in read_prompts(str(tmp_path / "a.json")).prompts] == ["one", "two"]
    csv = read_prompts(str(tmp_path / "a.csv")).prompts
    assert [(said(prompt.prompt), prompt.source.number, prompt.row["dataset"]) for prompt in csv] == [
        ([("u", "one, or\ntwo")], 2, "d"),
        ([("u", "three")], 4, "e"),
    ]
    text = read_prompts(str(tmp_path / "a.txt"))
    assert [(prompt.prompt, prompt.source.number) for prompt in text.prompts] == [("one", 1), ("täglich", 4)]
    assert len(text.files[0].sha256) == 64


def test_answers_that_are_left_out_are_told_and_columns_can_be_mapped(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"messages": [*TURNS, ANSWER]}, {"messages": TURNS}, {"messages": TURNS[:2]})
    assert read_prompts(path).notes == ("note         2 x ended with an answer, which was left out",)
    path = write(tmp_path / "q.jsonl", {"ask": "one", "prompt": "other"})
    mapped = read_prompts(path, columns=parse_columns("prompt=ask"))
    assert [prompt.prompt for prompt in mapped.prompts] == ["one"]


def test_a_limit_stops_before_what_lies_behind_it(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"prompt": "one"}, {"prompt": "two"}, "broken")
    assert len(read_prompts(path, limit=2).prompts) == 2
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    assert caught.value.where == f"{path}:3"


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        (({"text": "a", "n": 1},), 1, ("no column holds a prompt; columns found: text, n", "--columns prompt=NAME")),
        (({"prompt": "a", "question": "b"},), 1, ("several columns may be the prompt: prompt, question", "--columns prompt=prompt")),
        (
            ({"prompt": "a"}, {"prompt": "  "}, {"prompt": 3}),
            2,
            ("the prompt is empty", "p.jsonl:3: 'prompt' is int 3", "(2 wrong)"),
        ),
        (({"messages": TURNS}, {"messages": [ANSWER]}), 2, ("there is no message before the answers",)),
        (({"messages": TURNS}, {"messages": [{"role": "system", "content": "s"}]}), 2, ("ends with the system's turn",)),
        (({"prompt": "a", "images": ["x.png"]},), 1, ("only text is supported",)),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, rows: tuple[Any, ...], line: int, words: tuple[str, ...]) -> None:
    path = write(tmp_path / "p.jsonl", *rows)
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    for word in words:
        assert word in str(caught.value)


def test_files_without_prompts_say_so(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"one\nt\xe4glich\n")
    for name, words in (("blank.txt", "there are no prompts"), ("latin.txt", "latin.txt:2: "), ("lain.txt", "latin.txt")):
        with pytest.raises(DataError, match=words):
            read_prompts(str(tmp_path / name))

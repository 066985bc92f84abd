"""`orpo generate` as a user types it: replies are those of the model, are kept when it is stopped, and are written as asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Command = Callable[..., Any]

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

WORDS = "what is the capital of this large country near the sea".split()


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Seven prompts of different lengths."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": " ".join(WORDS[: 2 + i])}) + "\n" for i in (4, 1, 8, 2, 6, 0, 3)))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def greedy(folder: Path, texts: list[str], num: int) -> list[str]:
    """What the model in `folder` says after each text, one at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from orpo.evaluation.generation import greedy_replies

    body, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = [np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32) for text in texts]
    return [greedy_replies(body, tokenizer, [prompt], max_new_tokens=num)[0].text for prompt in ids]


def test_replies_in_batches_are_those_of_the_model_in_the_order_of_the_prompts(orpo: Command, full_run: Path, prompts: Path) -> None:
    outcome = orpo("generate", full_run, "--prompts", prompts, "--out", "out/r.jsonl", "--max-new-tokens", 6, "--batch-size", 3)
    assert outcome.exit_code == 0, outcome.text
    assert "wrote        out/r.jsonl: 7 replies to 7 prompts, 7 new" in outcome.out
    assert "template     the text as it stands, no chat template" in outcome.err
    rows = rows_of(Path("out/r.jsonl"))
    assert list(rows[0]) == ["prompt", "completion", "num_tokens", "has_ended", "generator", "source"]
    texts = [json.loads(line)["prompt"] for line in prompts.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == texts
    assert [row["completion"] for row in rows] == greedy(full_run / "model", texts, 6)
    assert {row["generator"] for row in rows} == {full_run.name}
    assert rows[2]["source"] == f"{prompts}:3"
    assert sorted(path.name for path in Path("out").iterdir()) == ["r.jsonl", "r.jsonl.settings.json"]


def test_a_chat_model_is_asked_by_its_template_and_samples_stand_in_one_row(orpo: Command, lively_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "p.txt").write_text("hello <|im_end|>\nwhat is it?\n")
    common = ("generate", lively_llama, "--prompts", "p.txt", "--max-new-tokens", 5)
    assert orpo(*common, "--out", "greedy.jsonl").exit_code == 0
    rows = rows_of(tmp_path / "greedy.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(lively_llama)
    assert rows[0]["completion"] != rows[1]["completion"]
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "what is it?"}], tokenize=False, add_generation_prompt=True)
    assert rows[1]["completion"] == greedy(lively_llama, [asked], 5)[0]
    sampled = ("--temperature", 1, "--num-samples", 3)
    for name, size in (("a.jsonl", 1), ("b.jsonl", 4)):
        assert orpo(*common, *sampled, "--out", name, "--batch-size", size).exit_code == 0
    rows = rows_of(tmp_path / "a.jsonl")
    assert rows == rows_of(tmp_path / "b.jsonl"), "what is drawn does not depend on the batch"
    assert [len(row["responses"]) for row in rows] == [3, 3]
    assert len(set(rows[0]["responses"])) > 1


def test_a_stopped_call_goes_on_where_it_was_stopped(
    orpo: Command, full_run: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orpo.pipeline import generate as module

    sampled = ("--max-new-tokens", 6, "--temperature", 1, "--batch-size", 2)
    command = ("generate", full_run, "--prompts", prompts, *sampled)
    assert orpo(*command, "--out", "whole.jsonl").exit_code == 0
    made: list[int] = []
    original = module.ReplyFile.add

    def add(self: Any, log: Any, done: Any) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(len(done))
        original(self, log, done)

    monkeypatch.setattr(module.ReplyFile, "add", add)
    outcome = orpo(*command, "--out", "r.jsonl")
    assert (outcome.exit_code, "stopped; 4 of 7 replies are kept" in outcome.err) == (130, True), outcome.text
    assert not (tmp_path / "r.jsonl").exists()
    with (tmp_path / "r.jsonl.partial").open("a") as file:
        file.write('{"step": 0, "sample": 0, "te')  # as kill -9 leaves it
    monkeypatch.setattr(module.ReplyFile, "add", original)
    other = orpo(*command, "--out", "r.jsonl", "--seed", 1)
    assert (other.exit_code, "seed was 0 and is 1" in other.err) == (2, True), other.text
    outcome = orpo(*command, "--out", "r.jsonl")
    assert outcome.exit_code == 0, outcome.text
    assert "goes on      4 of 7 replies were there already" in outcome.err
    assert "7 replies to 7 prompts, 3 new" in outcome.out
    assert (tmp_path / "r.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "r.jsonl.partial").exists()
    monkeypatch.setattr(module, "speaker_of", lambda *_: pytest.fail("loaded"))
    again = orpo(*command, "--out", "r.jsonl")
    assert (again.exit_code, "is there already, with the same settings" in again.err) == (0, True)


def test_changed_prompts_or_weights_are_not_mixed_with_earlier_replies(
    orpo: Command, full_run: Path, tiny_llama: Path, prompts: Path, tmp_path: Path
) -> None:
    command = ("generate", full_run, "--prompts", prompts, "--max-new-tokens", 2, "--limit", 2, "--out", "r.jsonl")
    assert orpo(*command).exit_code == 0
    assert len(rows_of(tmp_path / "r.jsonl")) == 2
    outcome = orpo("generate", tiny_llama, *command[2:])
    assert (outcome.exit_code, "with other settings: model was" in outcome.err) == (2, True)
    prompts.write_text(prompts.read_text() + "\n")
    outcome = orpo(*command)
    assert (outcome.exit_code, "with other settings: prompts was" in outcome.err) == (2, True)
    (tmp_path / "mine.jsonl").write_text("mine")
    outcome = orpo(*command[:-1], "mine.jsonl")
    assert (outcome.exit_code, "mine.jsonl exists already" in outcome.err) == (2, True)
    assert (tmp_path / "mine.jsonl").read_text() == "mine"


def test_alpaca_eval_gets_its_list(orpo: Command, tiny_chat_llama: Path, tmp_path: Path) -> None:
    rows = [
        {"instruction": "add", "dataset": "sums"},
        {"instruction": "say\u001b[31m", "dataset": None},
    ]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    common = ("generate", tiny_chat_llama, "--max-new-tokens", 4, "--format", "alpaca-eval")
    outcome = orpo(*common, "--prompts", "set.json", "--out", "out.json")
    assert outcome.exit_code == 0, outcome.text
    written = json.loads((tmp_path / "out.json").read_text())
    assert [list(row) for row in written] == [["instruction", "output", "generator", "dataset"]] * 2
    assert [(row["instruction"], row["dataset"]) for row in written] == [("add", "sums"), ("say\u001b[31m", "set")]
    assert {row["generator"] for row in written} == {tiny_chat_llama.name}
    (tmp_path / "two.jsonl").write_text(
        json.dumps({"instruction": "a"}) + "\n" + json.dumps({"instruction": "a", "history": [["b", "c"]]}) + "\n"
    )
    outcome = orpo(*common, "--prompts", "two.jsonl", "--out", "two.json")
    assert outcome.exit_code == 3
    assert outcome.err.startswith("two.jsonl:2: the prompt has 3 turns (user, assistant, user)")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--num-samples", 2), 2, "at --temperature 0 would give the same reply"),
        (("--num-samples", 2, "--temperature", 1, "--format", "alpaca-eval"), 2, "alpaca-eval takes one reply"),
        (("--num-samples", 0), 2, "--num-samples is 0"),
        (("--batch-size", 0), 2, "--batch-size is 0"),
        (("--limit", 0), 2, "--limit is 0"),
        (("--format", "csv"), 2, "one of jsonl, alpaca-eval"),
        (("--dtype", "float16"), 2, "auto, float32, bfloat16"),
        (("--prompts", "promts.jsonl"), 3, "prompts.jsonl"),
        (("--prompts", "empty.jsonl"), 3, "the file is empty"),
        (("--prompts", "turns.jsonl"), 3, "turns.jsonl:1: the prompt is a conversation"),
    ],
)
def test_what_cannot_be_is_refused_before_weights_are_loaded(
    orpo: Command,
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Path,
    prompts: Path,
    tmp_path: Path,
    arguments: tuple[Any, ...],
    code: int,
    words: str,
) -> None:
    from orpo.pipeline import generate as module

    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "turns.jsonl").write_text(json.dumps({"instruction": "a", "history": [["b", "c"]]}) + "\n")
    monkeypatch.setattr(module, "speaker_of", lambda *_: pytest.fail("loaded"))
    outcome = orpo("generate", tiny_llama, "--prompts", prompts, "--out", "r.jsonl", *arguments)
    assert (outcome.exit_code, outcome.out) == (code, ""), outcome.text
    assert words in outcome.err
    assert not list(tmp_path.glob("r.jsonl*"))

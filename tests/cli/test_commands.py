"""Every command as a user types it: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

GOOD = {"prompt": "what is the capital?", "chosen": " it is a large city.", "rejected": " no idea at all."}

# The flags that scripts rely on (YAML keys are the same with underscores).
CONTRACT = """
--model --data --eval-data --objective --preset --beta --max-steps --num-train-epochs --learning-rate --lr-scheduler-type --warmup-steps
--recipe --pairs-per-step --tokens-per-micro-batch --max-length --overlong --use-peft --lora-r --load-in-4bit --dtype
--gradient-checkpointing --optim --logging-steps --eval-steps --save-steps --seed --output-dir --fresh
--resume-anyway --columns --template --max-bad-rows --num-processes --sharding
""".split()
LATER = {"--load-in-8bit": "load_in_8bit"}


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def good(num: int) -> list[dict[str, str]]:
    return [{**GOOD, "prompt": f"what is the capital of land {i}?"} for i in range(num)]


@pytest.fixture
def unchanged(tmp_path: Path) -> Callable[[], list[tuple[str, float]]]:
    """What lies in the command's folder now: names and times of change."""
    return lambda: sorted((str(path.relative_to(tmp_path)), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))


def test_without_a_command_four_lines_say_where_to_begin(orpo: Command) -> None:
    outcome = orpo()
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert [line.split("  ")[0] for line in outcome.out.splitlines()] == ["new here?", "have pairs?", "ready?", "everything"]
    for command in ("orpo demo", "orpo check pairs.jsonl", "orpo train --model MODEL --data pairs.jsonl", "orpo --help"):
        assert command in outcome.out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command(orpo: Command, flag: str) -> None:
    outcome = orpo(flag)
    assert outcome.exit_code == 0
    listed = set(re.findall(r"^│ (\w+)", outcome.out, re.MULTILINE))
    assert listed >= {"demo", "check", "init", "plan", "train", "eval", "chat", "generate", "report", "export", "push", "env"}


def test_every_command_of_the_welcome_and_the_help_has_a_help_of_its_own(orpo: Command) -> None:
    for command in ("demo", "check", "init", "plan", "train", "eval", "chat", "generate", "report", "export", "push", "env"):
        outcome = orpo(command, "--help")
        assert outcome.exit_code == 0
        assert f"orpo {command}" in outcome.out


def test_the_version_is_that_of_the_package(orpo: Command) -> None:
    from importlib.metadata import version

    assert orpo("--version").out == f"orpo {version('orpo')}\n"


def test_train_help_names_every_flag_that_scripts_rely_on(orpo: Command) -> None:
    outcome = orpo("train", "--help")
    assert outcome.exit_code == 0
    words = set(re.findall(r"--[a-z0-9-]+", outcome.out))
    assert set(CONTRACT) - words == set()
    assert not words & set(LATER), "what is planned is not offered"


@pytest.mark.parametrize(("flag", "value"), [("--load-in-8bit", None)])
def test_a_flag_that_comes_later_is_answered_by_name(orpo: Command, tiny_llama: Path, tmp_path: Path, flag: str, value: Any) -> None:
    data = write_rows(tmp_path / "a.jsonl", *good(2))
    outcome = orpo("train", "--model", tiny_llama, "--data", data, flag, *([value] if value is not None else []))
    assert outcome.exit_code == 2
    assert LATER[flag] in outcome.err
    assert "planned" in outcome.err


HEAVY = ("torch", "transformers", "datasets", "numpy", "pyarrow", "peft", "accelerate")
LISTING = """
import sys
sys.argv = ["orpo", *{arguments!r}]
from orpo.cli.main import main
try:
    main()
except SystemExit as stop:
    code = stop.code
print("LOADED", code, *sorted({heavy!r} & sys.modules.keys()))
"""


HELPS = [("--help",), ("--version",), *((name, "--help") for name in ("train", "check", "eval", "chat", "generate", "compare", "report"))]


@pytest.mark.parametrize("arguments", [(), *HELPS])
def test_help_loads_none_of_the_heavy_libraries(arguments: tuple[str, ...]) -> None:
    program = LISTING.format(arguments=arguments, heavy=set(HEAVY))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1].split() in (["LOADED", "0"], ["LOADED", "None"])


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("train", "--learning-rat", "1"), "--learning-rate"),
        (("train", "--eval_data", "x"), "--eval-data"),
        (("check", "a.jsonl", "--modl", "x"), "--model"),
        (("eval", "run", "--dat", "x"), "--data"),
        (("trian",), "train"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(orpo: Command, arguments: tuple[str, ...], near: str) -> None:
    outcome = orpo(*arguments)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert near in outcome.err.split("Error", 1)[1]


def test_init_writes_a_file_that_train_reads(orpo: Command, tmp_path: Path) -> None:
    from orpo.training.config import resolve_config

    outcome = orpo("init")
    assert outcome.exit_code == 0
    assert "orpo train orpo.yaml" in outcome.out
    resolved = resolve_config(file=tmp_path / "orpo.yaml")
    assert resolved.notes == ()
    assert (resolved.config.model, resolved.config.data) == ("Qwen/Qwen3-0.6B-Base", ("pairs.jsonl",))
    line = int(resolved.origins["beta"].rpartition(":")[2])
    assert (tmp_path / "orpo.yaml").read_text().splitlines()[line - 1].startswith("beta: 0.1 ")


def test_init_never_overwrites(orpo: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: mine\n")
    outcome = orpo("init", "mine.yaml")
    assert outcome.exit_code == 2
    assert outcome.err.startswith("mine.yaml exists already")
    assert (tmp_path / "mine.yaml").read_text() == "model: mine\n"
    missing = orpo("init", "nowhere/orpo.yaml")
    assert missing.exit_code == 2
    assert "the folder nowhere does not exist" in missing.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_env_prints_versions_and_nothing_of_the_environment(orpo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    secrets = {"HF_TOKEN": "hf_abcdefghijklmnopqrstuv", "MY_OWN_SETTING": "a-value-of-mine", "WANDB_API_KEY": "0123456789abcdef"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    outcome = orpo("env")
    assert outcome.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in outcome.out.splitlines() if len(line.split()) > 1)
    assert facts["transformers"] == transformers.__version__
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "peft", "cpu", "cores", "memory_gib"} <= set(facts)
    for name, value in {**secrets, **{n: v for n, v in os.environ.items() if len(v) > 12 and n in ("PATH", "HOME", "PWD")}}.items():
        assert name not in outcome.out
        assert value not in outcome.out


def test_check_names_the_shape_and_counts_the_rows(orpo: Command, tmp_path: Path, unchanged: Callable[[], Any]) -> None:
    write_rows(tmp_path / "a.jsonl", *good(3), {**GOOD, "rejected": GOOD["chosen"]})
    before = unchanged()
    outcome = orpo("check", "a.jsonl")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert re.search(r"^shape +prompt-chosen-rejected$", outcome.out, re.MULTILINE)
    assert "4 rows, 3 pairs, 0 errors" in outcome.out
    assert re.search(r"^dropped +1 x identical: .*\(a\.jsonl:4\)$", outcome.out, re.MULTILINE)
    assert outcome.out.splitlines()[-1] == "ready: 3 pairs can be trained on"
    assert unchanged() == before


def test_check_json_is_one_object(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *good(3), {**GOOD, "rejected": GOOD["chosen"]})
    outcome = orpo("check", "a.jsonl", "--json")
    assert (outcome.exit_code, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert (report["shape"], report["rows"], report["pairs"]) == ("prompt-chosen-rejected", 4, 3)
    assert (report["errors"], report["dropped"], report["warnings"]) == ([], {"identical": 1}, {})


BAD = (*good(1), {"prompt": "x", "chosen": "y"}, *good(1), {**GOOD, "chosen": 7})


def test_check_of_bad_data_lists_every_error_with_its_place(orpo: Command, tmp_path: Path, unchanged: Callable[[], Any]) -> None:
    write_rows(tmp_path / "a.jsonl", *BAD)
    before = unchanged()
    outcome = orpo("check", "a.jsonl")
    assert outcome.exit_code == 3
    assert outcome.err.startswith("a.jsonl:2: ")
    assert "\na.jsonl:4: " in outcome.err
    assert "2 errors" in outcome.out
    assert "ready" not in outcome.out
    assert unchanged() == before


def test_check_json_of_bad_data_lists_errors_on_stdout_and_says_them_on_stderr(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *BAD)
    outcome = orpo("check", "a.jsonl", "--json")
    assert outcome.exit_code == 3
    errors = json.loads(outcome.out)["errors"]
    assert [(error["file"], error["line"]) for error in errors] == [("a.jsonl", 2), ("a.jsonl", 4)]
    assert all(error["kind"] and error["message"] for error in errors)
    assert outcome.err.startswith("a.jsonl:2: ")


def test_bad_rows_are_allowed_up_to_a_number(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *BAD)
    assert orpo("check", "a.jsonl", "--max-bad-rows", 1).exit_code == 3
    outcome = orpo("check", "a.jsonl", "--max-bad-rows", 2, "--json")
    assert outcome.exit_code == 0
    report = json.loads(outcome.out)
    assert (report["pairs"], report["num_bad_rows"], len(report["errors"])) == (2, 2, 2)


def test_columns_are_mapped(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *({"question": f"q {i}?", "good": " yes it is.", "bad": " no."} for i in range(3)))
    assert orpo("check", "a.jsonl").exit_code == 3
    outcome = orpo("check", "a.jsonl", "--columns", "prompt=question,chosen=good,rejected=bad", "--json")
    assert (outcome.exit_code, json.loads(outcome.out)["pairs"]) == (0, 3)


def test_labelled_rows_are_paired_when_asked(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *({"prompt": f"p {i // 2}", "completion": f"c {i}", "label": i % 2 == 0} for i in range(6)))
    refused = orpo("check", "a.jsonl")
    assert refused.exit_code == 3
    assert "--pair-labelled" in refused.err
    outcome = orpo("check", "a.jsonl", "--pair-labelled", "--json")
    assert (outcome.exit_code, json.loads(outcome.out)["pairs"]) == (0, 3)


def chat(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    answers = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", chosen), ("rejected", rejected))}
    return {"prompt": [{"role": "user", "content": question}], **answers}


def test_show_prints_rows_as_the_model_sees_them(orpo: Command, tmp_path: Path, tiny_chat_llama: Path) -> None:
    rows = [chat(f"what is {i}?", "a large \u202ecity\x1b[31m", "no \x07idea") for i in range(3)]
    write_rows(tmp_path / "a.jsonl", *rows)
    outcome = orpo("check", "a.jsonl", "--model", tiny_chat_llama, "--show", 2)
    assert outcome.exit_code == 0, outcome.text
    for i in range(2):
        assert f"a.jsonl:{i + 1}\n" in outcome.out
        assert f"⟦<|im_start|>user↵⟧\n   │ what is {i}?⟦<|im_end|>↵⟧\n   │ ⟦<|im_start|>assistant↵⟧\n" in outcome.out
    assert "what is 2?" not in outcome.out
    assert outcome.out.count("a large \\u202ecity\\x1b[31m⟦<|im_end|>⟧") == 2
    assert outcome.out.count("no \\x07idea⟦<|im_end|>⟧") == 2
    assert "carries no loss" in outcome.out
    assert re.search(r"^prompt +\d+ +\d+ +\d+ +\d+ +\d+$", outcome.out, re.MULTILINE), "token statistics"


def test_names_in_the_data_cannot_steer_the_terminal(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *good(2), {**GOOD, "x\x1b[2J\u202e": 1})
    outcome = orpo("check", "a.jsonl")
    assert outcome.exit_code == 0
    assert "x\\x1b[2J\\u202e" in outcome.out
    refused = orpo("check", "a.jsonl", "--columns", "prompt=nothing")
    assert refused.exit_code == 3
    for text in (outcome.text, refused.text):
        assert not set(text) & {"\x1b", "\u202e", "\x07"}


def test_check_takes_the_same_rows_as_training(orpo: Command, tmp_path: Path, make_tiny_llama: Callable[..., Path]) -> None:
    model = make_tiny_llama(tmp_path / "short", positions=48)
    write_rows(tmp_path / "a.jsonl", *good(3), {**GOOD, "prompt": "why? " * 60})
    checked = json.loads(orpo("check", "a.jsonl", "--model", model, "--json").out)
    outcome = orpo("train", "--model", model, "--data", "a.jsonl", "--max-steps", 1, "--num-samples", 0, "--output-dir", "run")
    assert outcome.exit_code == 0, outcome.text
    trained = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert checked["dropped"] == trained["dropped"] == {"prompt-too-long": 1}
    assert checked["tokens"] == trained["tokens"]
    refused = orpo("check", "a.jsonl", "--model", model, "--max-length", 49)
    assert refused.exit_code == 2
    assert "max_length is 49, but the model has only 48 positions" in refused.err


def test_an_unknown_overlong_policy_is_refused(orpo: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", *good(2))
    outcome = orpo("check", "a.jsonl", "--overlong", "cut")
    assert outcome.exit_code == 2
    assert "cut-completion" in outcome.err

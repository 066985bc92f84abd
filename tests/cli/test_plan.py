"""`orpo plan` as a user types it: what it prints, and exit 7 where a run does not fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def without_weights(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans") / "model"
    return Path(shutil.copytree(tiny_llama, folder, ignore=shutil.ignore_patterns("*.safetensors")))


def test_the_parts_of_memory_add_up_to_the_total(orpo: Command, without_weights: Path, pairs_file: Path, tmp_path: Path) -> None:
    outcome = orpo("plan", "--model", without_weights, "--data", pairs_file, "--dtype", "float32")
    assert (outcome.exit_code, outcome.err) == (0, "")
    labels = [re.split(r"  +", line.strip())[0] for line in outcome.out.splitlines() if line.startswith("  ")]
    assert labels == ["weights", "gradients", "optimizer", "activations", "head", "allocator slack", "this process", "data", "total"]
    figures = re.findall(r"^  [a-z ]+? +([\d.]+) (GiB|MiB)", outcome.out, re.MULTILINE)
    *parts, total = [float(number) * (1024 if unit == "GiB" else 1) for number, unit in figures]
    assert sum(parts) == pytest.approx(total, abs=12), "rounded to 0.01 GiB"
    for label in (
        "machine",
        "model",
        "dtype",
        "data",
        "template",
        "pairs",
        "longest",
        "steps",
        "at once",
        "padded rows",
        "recompute",
        "fits",
    ):
        assert re.search(rf"^{label} ", outcome.out, re.MULTILINE), label
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object(orpo: Command, without_weights: Path, pairs_file: Path) -> None:
    outcome = orpo("plan", "--model", without_weights, "--data", pairs_file, "--dtype", "float32", "--json")
    read = json.loads(outcome.out)
    assert (outcome.exit_code, read["fits"], read["num_pairs"], read["max_steps"]) == (0, True, 24, 3)
    assert read["memory_bytes"]["allocator"] > 0


def test_the_plan_says_what_became_of_the_data_and_that_there_are_no_weights(
    orpo: Command, tiny_llama: Path, without_weights: Path, tmp_path: Path
) -> None:
    data = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{i}?", "chosen": " yes.", "rejected": " no." if i else " yes."} for i in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--data", data, "--dtype", "float32", "--holdout", "2", "--template", "raw")
    out = orpo("plan", "--model", without_weights, *arguments).out
    assert re.search(r"^data +8 rows, 7 pairs", out, re.MULTILINE)
    assert re.search(r"^pairs +5 to train on, 2 held out$", out, re.MULTILINE)
    assert re.search(r"^dropped +1 x ", out, re.MULTILINE)
    assert "no weights in this folder yet" in out
    assert "no weights" not in orpo("plan", "--model", tiny_llama, *arguments).out
    read = json.loads(orpo("plan", "--model", without_weights, *arguments, "--json").out)
    assert (read["has_weights"], read["data"]["rows"], read["data"]["trained_on"], read["data"]["held_out"]) == (False, 8, 5, 2)
    assert sum(read["data"]["dropped"].values()) == 1


def test_what_does_not_fit_ends_with_7_and_two_flags_that_would(
    orpo: Command, without_weights: Path, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orpo.pipeline import plan

    arguments = ("--model", without_weights, "--data", pairs_file, "--dtype", "float32", "--pairs-per-step", "24")
    asked = ("--tokens-per-micro-batch", "4096", "--gradient-checkpointing", "off")
    memory = json.loads(orpo("plan", *arguments, *asked, "--json").out)["memory_bytes"]
    need = memory["peak"] - memory["process"] - memory["data"]
    monkeypatch.setattr(plan, "free_bytes", lambda device: need * 9 // 10)
    outcome = orpo("plan", *arguments, *asked)
    assert outcome.exit_code == 7
    assert re.search(r"^fits +no, [\d.]+ [GM]iB too much$", outcome.out, re.MULTILINE)
    offered = re.findall(r"^would fit +(--.*?)   \(", outcome.out, re.MULTILINE)
    assert len(offered) == 2
    for flags in offered:
        changed = flags.split()
        kept = [] if "--gradient-checkpointing" in changed else ["--gradient-checkpointing", "off"]
        budget = [] if "--tokens-per-micro-batch" in changed else ["--tokens-per-micro-batch", "4096"]
        assert orpo("plan", *arguments, *kept, *budget, *changed).exit_code == 0
    assert orpo("plan", *arguments, *asked, "--json").exit_code == 7


def test_a_plan_takes_the_file_and_flags_of_train(orpo: Command, without_weights: Path, pairs_file: Path, tmp_path: Path) -> None:
    (tmp_path / "orpo.yaml").write_text(f"model: {without_weights}\ndata: {pairs_file}\ndtype: float32\npairs_per_step: 6\n")
    assert json.loads(orpo("plan", "orpo.yaml", "--json").out)["pairs_per_step"] == 6
    assert json.loads(orpo("plan", "orpo.yaml", "--pairs-per-step", 3, "--json").out)["pairs_per_step"] == 3
    assert orpo("plan", "orpo.yaml", "--learning-rat", 1).exit_code == 2

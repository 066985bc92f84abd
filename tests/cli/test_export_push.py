"""`orpo export`, `orpo push` and `orpo init --recipe` as a user types them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def test_init_writes_a_recipe_out(orpo: Command, tmp_path: Path) -> None:
    outcome = orpo("init", "--recipe", "small-model")
    assert outcome.exit_code == 0
    assert "beta: 0.5" in (tmp_path / "orpo.yaml").read_text()
    outcome = orpo("init", "other.yaml", "--recipe", "smal-model")
    assert (outcome.exit_code, "did you mean small-model?" in outcome.err) == (2, True)
    assert not (tmp_path / "other.yaml").exists()


def test_export_merges_says_what_was_compared_and_refuses_to_overwrite(orpo: Command, adapter_run: Path, tmp_path: Path) -> None:
    outcome = orpo("export", adapter_run, "--to", "merged", "--out", tmp_path / "m")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert "what was written and loaded again (bfloat16) against the adapter on its base in full" in outcome.out
    assert re.search(r"they differ by 0\.\d+ % of the logits' spread", outcome.out)
    assert f"wrote        {tmp_path / 'm'}/\n" in outcome.out
    again = orpo("export", adapter_run, "--to", "merged", "--out", tmp_path / "m")
    assert (again.exit_code, "exists already" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "onnx"), "merged, gguf, ollama, vllm"),
        (("--to", "merged", "--dtype", "float16"), "bfloat16, float32"),
        (("--to", "merged", "--base", "8bit"), "full, 4bit"),
        (("--to", "merged", "--base", "4bit"), "--base 4bit is for runs with load_in_4bit"),
    ],
)
def test_an_export_that_cannot_be_is_refused(orpo: Command, adapter_run: Path, arguments: tuple[str, ...], words: str) -> None:
    outcome = orpo("export", adapter_run, *arguments)
    assert outcome.exit_code == 2
    assert words in outcome.err


def test_push_lists_every_file_and_sends_nothing_where_nobody_can_be_asked(orpo: Command, adapter_run: Path) -> None:
    outcome = orpo("push", adapter_run, "--to", "me/model")
    assert outcome.exit_code == 2
    assert "nobody is there to ask, and --yes was not given" in outcome.err
    size = (adapter_run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert f"  {size:>14,}  adapter_model.safetensors\n" in outcome.out
    assert "to           me/model (private)" in outcome.out
    assert "jsonl" not in outcome.out.split("not sent")[0]


def test_push_without_network_says_so(orpo: Command, adapter_run: Path) -> None:
    outcome = orpo("push", adapter_run, "--to", "me/model", "--yes")
    assert outcome.exit_code in (1, 2), "no token, or no network"
    assert "nothing was" in outcome.err

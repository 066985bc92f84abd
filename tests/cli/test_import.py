"""`orpo import` as a user types it: what it prints, where, and with which exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parent.parent / "moving_in" / "fixtures"


def test_the_command_prints_the_file_and_says_the_rest_on_stderr(orpo: Callable[..., Any], tmp_path: Path) -> None:
    outcome = orpo("import", FIXTURES / "axolotl-orpo.yaml")
    assert outcome.exit_code == 0
    assert outcome.out.startswith(f"# From {FIXTURES / 'axolotl-orpo.yaml'}: a configuration of Axolotl")
    assert "beta: 0.1  # line 14: orpo_alpha" in outcome.out
    assert "told by base_model, rl, orpo_alpha, sequence_len, micro_batch_size and" in outcome.err
    for title in ("changed meaning:", "not needed here:"):
        assert title in outcome.err
        assert f"# {title}" in outcome.out
    assert "load_in_4bit: true  # line 6" in outcome.out
    assert all(len(line) <= 130 for line in outcome.out.splitlines() if line.startswith("#"))


def test_a_file_is_never_overwritten_unless_forced(orpo: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "orpo.yaml"
    out.write_text("mine\n")
    outcome = orpo("import", FIXTURES / "trl-orpo.yaml", "--out", out)
    assert (outcome.exit_code, outcome.out, out.read_text()) == (2, "", "mine\n")
    assert f"{out} exists already" in outcome.err
    assert orpo("import", FIXTURES / "trl-orpo.yaml", "--out", out, "--force").exit_code == 0
    assert out.read_text().startswith("# From ")
    assert orpo("import", FIXTURES / "trl-orpo.yaml", "--out", tmp_path / "none" / "orpo.yaml").exit_code == 2


def test_a_file_of_no_known_tool_is_refused_naming_what_was_looked_for(orpo: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("optimiser: sgd\nlayers: 3\n")
    outcome = orpo("import", tmp_path / "other.yaml")
    assert (outcome.exit_code, outcome.out) == (2, "")
    for said in ("no tool that is known here", "of TRL dataset_name", "of LLaMA-Factory stage", "of Axolotl base_model", "--from"):
        assert said in outcome.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: m\ndata: d.jsonl\nbeta: 0.1\n", "a configuration of orpo already"),
        ("stage: dpo\ndataset_name: d\n", "this may be of TRL (dataset_name) or of LLaMA-Factory (stage)"),
        ("- a\n- b\n", "there are no settings in it"),
        ("", "there are no settings in it"),
        ("rl: grpo\nbase_model: m\n", "rl is 'grpo'"),
        ("rl: orpo\nbase_model: m\nlearning_rate: fast\ndatasets: [{path: d.jsonl}]\n", "theirs.yaml:3: learning_rate is 'fast'"),
        ("a: &x [1, 2]\nb: &y [*x, *x, *x, *x, *x, *x, *x, *x, *x, *x]\nc: &z [*y, *y, *y, *y, *y, *y, *y, *y, *y, *y]\n"
         "d: &v [*z, *z, *z, *z, *z, *z, *z, *z, *z, *z]\ne: [*v, *v, *v, *v, *v, *v, *v, *v, *v, *v]\n", "anchors stand for too many"),
        ("base_model: {a: [}\n", "not valid YAML"),
        ("finetuning_type: freeze\nstage: sft\n", "finetuning_type is 'freeze'"),
    ],
    ids=["ours", "tie", "list", "empty", "method", "value", "anchors", "syntax", "freeze"],
)  # fmt: skip
def test_what_cannot_be_translated_exits_2_and_says_where(orpo: Callable[..., Any], tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "theirs.yaml").write_text(text)
    outcome = orpo("import", "theirs.yaml")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert said in outcome.err
    assert len(outcome.err) < 2000


def test_the_tool_the_trainer_and_the_processes_can_be_named(orpo: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text('{"learning_rate": 1e-05, "per_device_train_batch_size": 2, "output_dir": "x"}')
    assert orpo("import", "args.json").exit_code == 2
    outcome = orpo("import", "args.json", "--from", "trl", "--trainer", "kto", "--processes", "4")
    assert outcome.exit_code == 0
    for line in ("objective: kto", "pairs_per_step: 8", "model: MODEL  # set this", "data: pairs.jsonl  # set this"):
        assert f"\n{line}" in outcome.out
    assert orpo("import", "args.json", "--from", "trainer").exit_code == 2


def test_importing_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; sys.argv = ['orpo', 'import', sys.argv[1]]\nfrom orpo.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(FIXTURES / "trl-orpo.yaml")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

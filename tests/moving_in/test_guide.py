"""docs/moving-in.md says what happens: its commands are run, its script trains, its names are those of the tables."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orpo.moving_in.recognised import TOOLS

FIXTURES = Path(__file__).parent / "fixtures"

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def guide(root: Path) -> str:
    return (root / "docs" / "moving-in.md").read_text()


def test_the_commands_of_the_guide_run_as_they_stand(
    guide: str, tiny_llama: Path, preference_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    commands = re.findall(r"(?m)^    (orpo .*)$", guide)
    assert [command.split()[1] for command in commands] == ["import", "plan", "train"]
    text = (
        (FIXTURES / "axolotl-dpo.yaml").read_text().replace("rl: dpo\nrl_beta: 0.05", "rl: orpo").replace("num_epochs: 2", "max_steps: 2")
    )
    text = text.replace("meta-llama/Llama-3.2-1B", str(tiny_llama))
    (tmp_path / "axolotl.yaml").write_text(text)
    (tmp_path / "data").mkdir()
    rows = [{"question": row["prompt"], "good": row["chosen"], "bad": row["rejected"]} for row in preference_rows]
    (tmp_path / "data" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", *command.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "CI": "1"},
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "dpo" / "model" / "model.safetensors").is_file()


def test_the_script_of_the_guide_trains(
    guide: str, tiny_bos_llama: Path, preference_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = guide.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny_bos_llama, "my-model")
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in preference_rows))
    exec(compile(script, "script.py", "exec"), {})
    assert Path("final/model.safetensors").is_file()
    assert Path("out/report.html").is_file()


def test_the_names_in_the_table_of_the_guide_are_those_of_the_tools(guide: str) -> None:
    from orpo.training.config_aliases import RENAMED
    from orpo.training.config_fields import known_names

    table = guide.split("## What is called what")[1].split("\n## ")[0]
    by_column = [tool.rules for tool in TOOLS]
    for line in table.splitlines()[4:]:
        cells = [cell.strip() for cell in line.strip("| \n").split("|")]
        if len(cells) != 4:
            continue
        assert all(name.split(":")[0] in known_names() for name in re.findall(r"`([^`]+)`", cells[0])), cells[0]
        for cell, rules in zip(cells[1:], by_column, strict=True):
            for name in re.findall(r"`([^`]+)`", cell):
                key = name.split(":")[0]
                assert key in rules or key in RENAMED or key in known_names(), name

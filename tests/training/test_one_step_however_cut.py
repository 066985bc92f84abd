"""One optimizer step is the same however it is cut: 8 pairs as 8x1, 2x4, 1x8, and on two gloo ranks, through the real command.

The engine takes its fastest path in all of them, prompts once.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from orpo.engine.paths import SAID
from orpo.engine.paths import Path as EnginePath

STEPS = 6
OPTIONS = ["--max-steps", str(STEPS), "--pairs-per-step", "8", "--learning-rate", "1e-3", "--logging-steps", "1"]
OPTIONS += ["--dtype", "float32", "--num-samples", "0"]
CASES = {
    "orpo": ["--nll-average", "token", "--beta", "0.5"],
    "dpo": ["--objective", "dpo", "--beta", "0.5", "--reference", "precomputed"],
    "kto": ["--objective", "kto", "--beta", "0.5", "--reference", "copy"],
    "dpo with lora": ["--objective", "dpo", "--beta", "0.5", "--use-peft", "--reference", "adapter"],
    "reward": ["--objective", "reward"],
}
PAIR = 7 + (6 + 1) + (5 + 1)
"""Tokens of each pair: the prompt once, each answer with its end token; this tokenizer adds no BOS."""

# The command closes the process group at its end; here one group serves all commands, and a start of torch and transformers with it.
IN_TURN = """
from orpo.cli.main import app
from orpo.training import ranks

end_ranks, ranks.end_ranks = ranks.end_ranks, lambda: None
for command in {commands}:
    app(command, standalone_mode=False)
end_ranks()
"""


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs of digits: every digit is a token of its own, so that all pairs have the same number of tokens, whatever the seed."""
    digits = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "digits.jsonl"
    rows = [
        {name: "".join(digits.choices("0123456789", k=k)) for name, k in (("prompt", 7), ("chosen", 6), ("rejected", 5))} for _ in range(24)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train_here(command: list[str]) -> None:
    """`orpo train` in this process."""
    from orpo.cli.main import app

    app(command, standalone_mode=False)


def train_on_two_ranks(commands: list[list[str]], program: Path) -> str:
    """What `orpo train` says for each of `commands` in turn, under torchrun: two processes that talk through gloo."""
    program.write_text(IN_TURN.format(commands=commands))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(launcher, env={**os.environ, "CI": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def assert_took_the_shared_path(output: str, *, times: int = 1) -> None:
    assert len(re.findall(f"^engine +{re.escape(SAID[EnginePath.SHARED])}", output, re.MULTILINE)) == times, output


def assert_same(run_dir: Path, whole_dir: Path) -> None:
    """The losses of all steps and the final weights of two runs are the same, but for rounding."""
    (losses, weights), (whole_losses, whole_weights) = outcome(run_dir), outcome(whole_dir)
    assert len(whole_losses) == STEPS
    assert losses == pytest.approx(whole_losses, abs=1e-6), run_dir.name
    worst = max(float((weights[key] - whole_weights[key]).abs().max()) for key in whole_weights)
    off = max(abs(a - b) for a, b in zip(losses, whole_losses, strict=True))
    print(f"{run_dir.name}: largest difference of a loss {off:.1e}, of a weight {worst:.1e}")
    assert worst < 1e-5, run_dir.name


def outcome(run_dir: Path) -> tuple[list[float], dict[str, Any]]:
    """Losses of all steps and the final weights of a run."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["split"] == "train"], load_file(next(run_dir.glob("*/*model.safetensors")))


@pytest.fixture
def command(tiny_llama: Path, pairs_file: Path) -> Callable[..., list[str]]:
    """The command that trains in `run_dir` with `budget` tokens per micro-batch."""
    given = ["train", "--model", str(tiny_llama), "--data", str(pairs_file), *OPTIONS]
    return lambda case, run_dir, budget: [*given, "--output-dir", str(run_dir), "--tokens-per-micro-batch", str(budget), *CASES[case]]


@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_do_not_depend_on_micro_batches(
    case: str, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, budget in (("1x8", 8 * PAIR), ("2x4", 4 * PAIR), ("8x1", PAIR)):
        train_here(command(case, tmp_path / name, budget))
        assert_took_the_shared_path("".join(capsys.readouterr()))
        assert_same(tmp_path / name, tmp_path / "1x8")
    assert json.loads((tmp_path / "1x8" / "data_report.json").read_text())["pairs"] == 24


def test_losses_and_weights_do_not_depend_on_ranks(command: Callable[..., list[str]], tmp_path: Path) -> None:
    said = train_on_two_ranks([command(case, tmp_path / f"{case}, two ranks", 4 * PAIR) for case in CASES], tmp_path / "in_turn.py")
    assert_took_the_shared_path(said, times=len(CASES))
    for case in CASES:
        train_here(command(case, tmp_path / case, 8 * PAIR))
        assert_same(tmp_path / f"{case}, two ranks", tmp_path / case)

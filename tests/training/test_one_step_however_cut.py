"""One optimizer step is the same however it is cut: 8 pairs as 8x1, 2x4, 1x8, and on two gloo ranks, through the real command.

Two ranks hold all weights each (DDP), or divide them (FSDP2). The engine takes its fastest path in all of them, prompts once.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from orpo.engine.paths import SAID
from orpo.engine.paths import Path as EnginePath

STEPS = 6
OPTIONS = ["--max-steps", str(STEPS), "--pairs-per-step", "8", "--learning-rate", "1e-3", "--logging-steps", "1"]
OPTIONS += ["--dtype", "float32", "--num-samples", "0"]
# 15 pairs in steps of 7: each third step has one pair, and one of two ranks nothing to do; of 9 held-out pairs they have unlike shares.
UNEVEN = ["--holdout", "9", "--pairs-per-step", "7"]
CASES = {
    "orpo": ["--nll-average", "token", "--beta", "0.5", *UNEVEN],
    "dpo": ["--objective", "dpo", "--beta", "0.5", "--reference", "precomputed"],
    "kto": ["--objective", "kto", "--beta", "0.5", "--reference", "copy"],
    "dpo with lora": ["--objective", "dpo", "--beta", "0.5", "--use-peft", "--reference", "adapter"],
    "reward": ["--objective", "reward"],
}
PAIR = 7 + (6 + 1) + (5 + 1)
"""Tokens of each pair: the prompt once, each answer with its end token; this tokenizer adds no BOS."""

# The command closes the process group at its end; here one group serves all commands, and a start of torch and transformers with it.
# After each training the first rank tells which share of the weights it holds.
IN_TURN = """
import shutil
from pathlib import Path

from torch.distributed.fsdp import FSDPModule

from orpo.cli.main import app
from orpo.training import ranks
from orpo.training.trainer import PreferenceTrainer

train = PreferenceTrainer.train


def told(trainer, **options):
    train(trainer, **options)
    body = trainer.model.body
    weights = [p.to_local() if hasattr(p, "to_local") else p for p in body.parameters()]
    share = sum(p.numel() for p in weights) / sum(p.numel() for p in body.parameters())
    if ranks.is_first():
        print("HOLDS", isinstance(body, FSDPModule), sum(isinstance(m, FSDPModule) for m in body.modules()), round(share, 2))


def half_way(run_dir, copy):
    shutil.copytree(run_dir, copy)
    for folder in ("checkpoint-6", "model"):
        shutil.rmtree(Path(copy) / folder)


PreferenceTrainer.train = told
end_ranks, ranks.end_ranks = ranks.end_ranks, lambda: None
for command in {commands}:
    if command[0] == "half way":
        ranks.from_first(lambda: half_way(*command[1:]))
    else:
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
    assert len(whole_losses) >= STEPS
    assert losses == pytest.approx(whole_losses, abs=1e-6), run_dir.name
    assert {name: weight.dtype for name, weight in weights.items()} == {name: weight.dtype for name, weight in whole_weights.items()}
    worst = max(float((weights[key] - whole_weights[key]).abs().max()) for key in whole_weights)
    off = max(abs(a - b) for a, b in zip(losses, whole_losses, strict=True))
    print(f"{run_dir.name}: largest difference of a loss {off:.1e}, of a weight {worst:.1e}")
    assert worst < 1e-5, run_dir.name


def outcome(run_dir: Path) -> tuple[list[float], dict[str, Any]]:
    """Losses of all steps and evaluations, and the weights that came out of a run."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    (weights,) = (path for name in ("model", "adapter") for path in run_dir.glob(f"{name}/*model.safetensors"))
    return [row["loss"] for row in rows], load_file(weights)


@pytest.fixture(scope="module")
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


DIVIDED = ["--sharding", "fsdp", "--save-steps", "3", "--save-total-limit", "9"]
RECOMPUTED = ["--gradient-checkpointing", "on"]
"""What the divided run of `dpo` does besides: layers are then gathered again in the backward pass."""


@pytest.fixture(scope="module")
def ranks(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(where the runs of two ranks lie, by case with ', two ranks' or ', divided' behind; what they said). Made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "two-ranks"
    with FileLock(folder.with_suffix(".lock")):
        said = folder / "said.txt"
        if not said.exists():
            folder.mkdir()
            said.write_text(_runs_of_ranks(command, folder))
    return folder, said.read_text()


def _runs_of_ranks(command: Callable[..., list[str]], folder: Path) -> str:
    """What two ranks said while they made every run of this module in `folder`."""
    commands = [command(case, folder / f"{case}, two ranks", 4 * PAIR) for case in CASES]
    for case in CASES:
        commands.append([*command(case, folder / f"{case}, divided", 4 * PAIR), *DIVIDED, *(RECOMPUTED if case == "dpo" else [])])
    commands.append([*command("orpo", folder / "orpo, bf16", 4 * PAIR), *DIVIDED, "--dtype", "bfloat16"])
    for name, options in (("resumed", DIVIDED), ("resumed whole", ["--save-steps", "3"])):
        commands.append(["half way", str(folder / "orpo, divided"), str(folder / name)])
        commands.append([*command("orpo", folder / name, 4 * PAIR), *options])
    return train_on_two_ranks(commands, folder / "in_turn.py")


@pytest.fixture(scope="module")
def one_rank(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a case in this process, made once."""
    folder = tmp_path_factory.mktemp("one-rank")

    @cache
    def run_dir(case: str) -> Path:
        train_here(command(case, folder / case, 8 * PAIR))
        return folder / case

    return run_dir


@pytest.mark.parametrize("how", ["two ranks", "divided"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_do_not_depend_on_ranks(case: str, how: str, ranks: tuple[Path, str], one_rank: Callable[[str], Path]) -> None:
    assert_same(ranks[0] / f"{case}, {how}", one_rank(case))


def test_ranks_take_the_shared_path_and_hold_all_weights_or_their_half(ranks: tuple[Path, str]) -> None:
    assert_took_the_shared_path(ranks[1], times=2 * len(CASES) + 3)
    held = re.findall("^HOLDS (.*)$", ranks[1], re.MULTILINE)
    whole, divided = "False 0 1.0", "True 3 0.5"  # the model and its two layers are divided
    assert held == [whole] * len(CASES) + [divided] * (len(CASES) + 1) + [divided, whole]


def test_divided_weights_in_bf16_agree_to_rounding(ranks: tuple[Path, str], one_rank: Callable[[str], Path]) -> None:
    losses, whole_losses = (outcome(run_dir)[0] for run_dir in (ranks[0] / "orpo, bf16", one_rank("orpo")))
    assert losses == pytest.approx(whole_losses, abs=2e-2)
    assert losses != whole_losses


def test_a_run_with_divided_weights_resumes_to_the_bit(ranks: tuple[Path, str]) -> None:
    (losses, weights), (whole_losses, whole_weights) = outcome(ranks[0] / "resumed"), outcome(ranks[0] / "orpo, divided")
    assert losses == whole_losses
    assert all(torch.equal(weights[name], whole_weights[name]) for name in whole_weights)
    assert "resuming from checkpoint-3" in ranks[1]


def test_a_checkpoint_of_divided_weights_is_one_of_whole_weights(ranks: tuple[Path, str], one_rank: Callable[[str], Path]) -> None:
    assert_same(ranks[0] / "resumed whole", one_rank("orpo"))

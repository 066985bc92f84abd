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

import pytest
from safetensors.torch import load_file

from orpo.engine.paths import SAID
from orpo.engine.paths import Path as EnginePath

STEPS = 6
OPTIONS = ["--max-steps", str(STEPS), "--pairs-per-step", "8", "--learning-rate", "1e-3", "--logging-steps", "1"]
OPTIONS += ["--dtype", "float32", "--num-samples", "0"]
ORPO = ["--nll-average", "token", "--beta", "0.5"]
DPO = ["--objective", "dpo", "--beta", "0.5", "--reference", "precomputed"]
KTO = ["--objective", "kto", "--beta", "0.5", "--reference", "copy"]
DPO_LORA = ["--objective", "dpo", "--beta", "0.5", "--use-peft", "--reference", "adapter"]
REWARD = ["--objective", "reward"]


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


def train_here(arguments: list[str]) -> None:
    """`orpo train` in this process."""
    from orpo.cli.main import app

    app(["train", *arguments], standalone_mode=False)


def train_on_two_ranks(arguments: list[str]) -> None:
    """`orpo train` under torchrun: two processes that talk through gloo."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "orpo", "train"]
    done = subprocess.run([*launcher, *arguments], env={**os.environ, "CI": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout, done.stderr)


def outcome(
    train: Callable[[list[str]], None], model: Path, data: Path, run_dir: Path, budget: int, options: list[str]
) -> tuple[list[float], dict]:
    """Losses of all steps and the final weights of a run with `budget` tokens per micro-batch."""
    train(
        [
            *("--model", str(model), "--data", str(data), "--output-dir", str(run_dir)),
            *(*OPTIONS, *options, "--tokens-per-micro-batch", str(budget)),
        ]
    )
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["split"] == "train"], load_file(next(run_dir.glob("*/*model.safetensors")))


def assert_took_the_shared_path(output: str) -> None:
    assert len(re.findall(f"^engine +{re.escape(SAID[EnginePath.SHARED])}", output, re.MULTILINE)) == 1, output


@pytest.mark.parametrize("options", [ORPO, DPO, KTO, DPO_LORA, REWARD], ids=["orpo", "dpo", "kto", "dpo with lora", "reward"])
def test_losses_and_weights_do_not_depend_on_micro_batches_or_ranks(
    options: list[str], tiny_llama: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = 7 + (6 + 1) + (5 + 1)  # the prompt once, each answer with its end token; this tokenizer adds no BOS
    whole_losses, whole_weights = outcome(train_here, tiny_llama, pairs_file, tmp_path / "1x8", 8 * pair, options)
    assert_took_the_shared_path("".join(capsys.readouterr()))
    report = json.loads((tmp_path / "1x8" / "data_report.json").read_text())
    assert report["pairs"] == 24
    assert len(whole_losses) == STEPS
    cuts = {"2x4": (train_here, 4 * pair), "8x1": (train_here, pair), "two ranks": (train_on_two_ranks, 4 * pair)}
    for name, (train, budget) in cuts.items():
        losses, weights = outcome(train, tiny_llama, pairs_file, tmp_path / name.replace(" ", "-"), budget, options)
        assert_took_the_shared_path("".join(capsys.readouterr()))
        assert losses == pytest.approx(whole_losses, abs=1e-6), name
        worst = max(float((weights[key] - whole_weights[key]).abs().max()) for key in whole_weights)
        off = max(abs(a - b) for a, b in zip(losses, whole_losses, strict=True))
        print(f"{name}: largest difference of a loss {off:.1e}, of a weight {worst:.1e}")
        assert worst < 1e-5, name

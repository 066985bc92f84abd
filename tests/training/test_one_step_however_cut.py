"""One optimizer step is the same however it is cut: 8 pairs as 8x1, 2x4, 1x8, and on two gloo ranks, through the real command."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

STEPS = 6
OPTIONS = ["--max-steps", str(STEPS), "--pairs-per-step", "8", "--learning-rate", "1e-3", "--logging-steps", "1"]
OPTIONS += ["--dtype", "float32", "--num-samples", "0", "--nll-average", "token", "--beta", "0.5"]


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


def run(launcher: list[str], model: Path, data: Path, run_dir: Path, budget: int) -> tuple[list[float], dict]:
    """Losses of all steps and the final weights of a run with `budget` tokens per micro-batch."""
    command = [*launcher, "-m", "orpo", "train", "--model", str(model), "--data", str(data), "--output-dir", str(run_dir)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "1"}
    done = subprocess.run(
        [*command, *OPTIONS, "--tokens-per-micro-batch", str(budget)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["split"] == "train"], load_file(run_dir / "model" / "model.safetensors")


def test_losses_and_weights_do_not_depend_on_micro_batches_or_ranks(tiny_llama: Path, pairs_file: Path, tmp_path: Path) -> None:
    pair = 7 + (6 + 1) + (5 + 1)  # the prompt once, each answer with its end token; this tokenizer adds no BOS
    whole_losses, whole_weights = run([sys.executable], tiny_llama, pairs_file, tmp_path / "1x8", 8 * pair)
    report = json.loads((tmp_path / "1x8" / "data_report.json").read_text())
    assert report["pairs"] == 24
    assert len(whole_losses) == STEPS
    cuts = {"2x4": ([sys.executable], 4 * pair), "8x1": ([sys.executable], pair)}
    cuts["two ranks"] = ([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], 4 * pair)
    for name, (launcher, budget) in cuts.items():
        losses, weights = run(launcher, tiny_llama, pairs_file, tmp_path / name.replace(" ", "-"), budget)
        assert losses == pytest.approx(whole_losses, abs=1e-6), name
        worst = max(float((weights[key] - whole_weights[key]).abs().max()) for key in whole_weights)
        off = max(abs(a - b) for a, b in zip(losses, whole_losses, strict=True))
        print(f"{name}: largest difference of a loss {off:.1e}, of a weight {worst:.1e}")
        assert worst < 1e-5, name

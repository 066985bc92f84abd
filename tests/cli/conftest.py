"""Running commands inside the test process: as a user types them, in an empty folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@pytest.fixture
def orpo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Outcome]:
    """Runs `orpo ARGUMENTS` in an empty folder and gives exit code and output."""
    from orpo.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["orpo", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return Outcome(int(code) if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs whose answers differ in length."""
    rows = [
        {
            "prompt": f"{i}: what is the capital?",
            "chosen": " it is a large city" + ", and near the sea" * (i % 3) + ".",
            "rejected": " no idea" + " at all" * (i % 4),
        }
        for i in range(24)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def short_run(model: Path, data: Path, run_dir: Path, **settings: Any) -> Path:
    """The directory of a run of a few steps."""
    import orpo

    given = {"max_steps": 3, "pairs_per_step": 4, "learning_rate": 1e-2, "dtype": "float32", "num_samples": 0, **settings}
    return Path(orpo.train(model=str(model), data=str(data), output_dir=str(run_dir), **given).run_dir)


@pytest.fixture(scope="session")
def lively_llama(tiny_chat_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model with a head of its own and large weights: what it says depends on all that was said before."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    body = AutoModelForCausalLM.from_pretrained(tiny_chat_llama)
    torch.manual_seed(4)
    body.config.tie_word_embeddings = False
    body.lm_head = torch.nn.Linear(64, 512, bias=False)
    with torch.no_grad():
        for parameter in body.model.layers.parameters():
            parameter.mul_(8 if parameter.dim() == 2 else 1)
    folder = tmp_path_factory.mktemp("models") / "lively-llama"
    body.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_chat_llama).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def full_run(tiny_llama: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained all weights."""
    return short_run(tiny_llama, pairs_file, tmp_path_factory.mktemp("runs") / "full")


@pytest.fixture(scope="session")
def adapter_run(make_tiny_llama: Callable[..., Path], pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run with two tokens that its base has no rows for (ChatML)."""
    folder = tmp_path_factory.mktemp("runs")
    base = make_tiny_llama(folder / "base", vocabulary=300)
    return short_run(base, pairs_file, folder / "adapter", use_peft=True, lora_r=4, template="chatml", max_length=512)

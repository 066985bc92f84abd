"""A small checkpoint with the kinds of files that a real one has, and the facts a trainer would give."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from orpo.runs.checkpoints import Published, publish_checkpoint
from orpo.runs.manifest import BaseModel, CheckpointFacts

Writer = Callable[[Path], None]


def write_through_os(path: Path, content: bytes) -> None:
    """Through `os.*`, so that tests can stop or fail each call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def writer_of(step: int) -> Writer:
    noise = random.Random(step)
    files = {
        "model.safetensors": noise.randbytes(9000),
        "optimizer.pt": noise.randbytes(5000),
        "scheduler.pt": noise.randbytes(300),
        "rng_state.pth": noise.randbytes(700),
        "trainer_state.json": json.dumps({"global_step": step, "log_history": [{"loss": noise.random()}] * 5}).encode(),
    }

    def write_files(directory: Path) -> None:
        for name, content in files.items():
            write_through_os(directory / name, content)
        (directory / "tokenizer").mkdir()
        write_through_os(directory / "tokenizer" / "tokenizer.json", noise.randbytes(200))

    return write_files


def facts_at(step: int) -> CheckpointFacts:
    return CheckpointFacts(
        epoch=step / 100,
        samples_seen=step * 8,
        world_size=1,
        identity={"objective": "orpo", "beta": 0.1, "lora": {"r": 8}},
        free={"save_steps": 10},
        data={"rows": 400, "files": ["a" * 64]},
        base_model=BaseModel("tiny", None, "b" * 64),
        libraries={"torch": "2.13"},
    )


@pytest.fixture
def writer() -> Callable[[int], Writer]:
    return writer_of


@pytest.fixture
def facts() -> Callable[[int], CheckpointFacts]:
    return facts_at


@pytest.fixture
def publish() -> Callable[[Path, int], Published]:
    return lambda run_dir, step: publish_checkpoint(run_dir, step, write_files=writer_of(step), facts=facts_at(step))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run-1"
    path.mkdir()
    return path


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing does nothing: for tests of many saves, in which no power is cut. That it is called is tested elsewhere."""
    monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture
def unprivileged() -> None:
    if os.getuid() == 0:
        pytest.skip("root may write anywhere, so permissions cannot be tested")

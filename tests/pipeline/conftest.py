"""Small runs through the pipeline, inside the test process."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pairs of short sentences of different lengths."""
    words = "the a cat dog house tree red blue runs sleeps under over and with small large quick lazy".split()
    draw = random.Random(5)
    rows = []
    for number in range(40):
        texts = {name: " ".join(draw.choices(words, k=draw.randint(2, 9))) for name in ("prompt", "chosen", "rejected")}
        rows.append({"prompt": f"{number} {texts['prompt']}", "chosen": f" {texts['chosen']}", "rejected": f" {texts['rejected']} no"})
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def train(tiny_llama: Path, pairs_file: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs `orpo.train` on the tiny model in `tmp_path / name` with settings for a short run."""
    import orpo

    def run(name: str = "run", **settings: Any) -> Any:
        defaults = {
            "model": str(tiny_llama),
            "data": str(pairs_file),
            "output_dir": str(tmp_path / name),
            "max_steps": 8,
            "pairs_per_step": 4,
            "save_steps": 2,
            "save_total_limit": 10,
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "dtype": "float32",
            "num_samples": 0,
        }
        merged = {**defaults, **settings}
        return orpo.train(**{key: value for key, value in merged.items() if value is not None})

    return run


@pytest.fixture
def rows() -> Callable[[Path], list[dict[str, Any]]]:
    """Rows of a run's metrics.jsonl."""
    return lambda run_dir: [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]

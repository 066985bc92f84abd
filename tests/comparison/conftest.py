"""Plans without trainings, and a toy comparison that trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.comparison.config import CompareConfig, read_config
from orpo.comparison.pairs import PairFiles
from orpo.comparison.settings import stage_settings
from orpo.comparison.stages import Plan


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    """The plan of a config text; steps are given, nothing is checked against data."""

    def plan(text: str, **steps: tuple[int, ...]) -> Plan:
        path = tmp_path / "compare.yaml"
        path.write_text(text)
        config = read_config(str(path))
        share = config.budget.share
        by_name = {p.name: tuple(int(share(len(p.stages), k)) for k in range(len(p.stages))) for p in config.pipelines}
        return Plan(config, {**by_name, **steps}, {"weights": "w", "data": "d"}, resolver(config))

    return plan


def resolver(config: CompareConfig) -> Callable[..., Any]:
    """Settings of a stage as a session makes them, in folders that are not there."""
    files = PairFiles(("train.jsonl",), ("validation.jsonl",), ("held-out.jsonl",))

    def resolve(objective: str, candidate: Any, parent: str | None, *, seed: int, steps: int, measured: str) -> Any:
        return stage_settings(
            config,
            files,
            objective=objective,
            candidate=candidate,
            model=parent or "base",
            seed=seed,
            steps=steps,
            is_measured=measured != "validation",
        )

    return resolve


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pairs of short texts."""
    rows = [
        {
            "prompt": f"{i}: what is it?",
            "chosen": " it is a city" + " by the sea" * (i % 3) + ".",
            "rejected": " no idea" + " at all" * (i % 4),
        }
        for i in range(48)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

"""docs/debugging-nan.md: its two scripts run on a model and on a batch that was saved, and find what is wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.model import LogpsModel
from orpo.training.guards import FiniteGuard
from orpo.training.models import load_model


@pytest.fixture
def scripts(root: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (root / "docs" / "debugging-nan.md").read_text(), flags=re.DOTALL)


@pytest.fixture
def broken(tiny_llama: Path, tmp_path: Path) -> Path:
    """A model one of whose weights is not finite."""
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def saved_batch(model: Path, path: Path) -> Path:
    """What the guard saves of a step of one pair."""
    pair = TokenizedExample(np.array([5, 6, 7], dtype=np.int32), (np.array([8, 9], dtype=np.int32),) * 2, Source("pairs.jsonl", 31))

    def save(report: dict[str, Any]) -> str:
        path.write_text(json.dumps(report))
        return str(path)

    guard = FiniteGuard(save)
    guard.begin(2, [pair])
    with torch.no_grad():
        guard.saw([pair], LogpsModel(load_model(str(model), dtype=torch.float32))([pair]))
    guard.end(torch.tensor(float("nan")))
    assert guard.must_skip(1.0)
    return path


def test_weights_that_are_not_finite_are_named(scripts: list[str], broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(scripts[0], {"model": str(broken)})
    assert capsys.readouterr().out == "['model.norm.weight']\n"


def test_a_saved_batch_is_computed_again_row_by_row(
    scripts: list[str], tiny_llama: Path, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = saved_batch(broken, tmp_path / "non-finite-step-3.json")
    exec(scripts[1], {"model": str(tiny_llama), "batch": str(batch)})
    out = capsys.readouterr().out
    assert out.startswith("pairs.jsonl:31 {'chosen': 'nan', 'rejected': 'nan', 'prompt': 'nan'} again: [-")
    assert out.count("nan") == 3, "the model before it broke gives finite numbers"

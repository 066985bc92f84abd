"""A toy comparison from its file to compare.json: what it shares and keeps, how it goes on after any end, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orpo.comparison.config import read_config
from orpo.comparison.run import Comparison, run_comparison
from orpo.errors import ConfigError, RunLockedError
from orpo.runs.lock import RunLock

CONFIG = """\
model: {model}
data: {data}
holdout: 10
validation: 8
pipelines: [orpo, sft > dpo]
budget: 6 steps
seeds: 1
tune_by: accuracy
tune:
  orpo: {{learning_rate: [1e-3, 1e-2]}}
  sft: {{learning_rate: [1e-3, 1e-2]}}
  dpo: {{learning_rate: [1e-3, 1e-2]}}
settings: {{pairs_per_step: 4, dtype: float32, max_new_tokens: 4}}
jobs: 2
"""


def written(folder: Path, model: Path, data: Path, **changes: str) -> Path:
    """The file of a toy comparison; `changes` replace parts of it."""
    text = CONFIG.format(model=model, data=data)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "toy.yaml"
    path.write_text(text)
    return path


def measured(found: dict[str, Any]) -> dict[str, Any]:
    """compare.json without what differs from run to run: times, memory, command."""
    kept = {key: value for key, value in found.items() if key not in ("started", "finished", "seconds", "command", "environment")}
    text = json.loads(json.dumps(kept))
    for pipeline in text["pipelines"]:
        for part in (*pipeline["cost"]["stages"], pipeline["cost"]["total"], pipeline["cost"]["tuning"]):
            part.pop("seconds")
            part.pop("peak_memory_gib", None)
    return text


@pytest.fixture(scope="session")
def toy(tiny_llama: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    """The file and the outcome of a comparison that nobody disturbed."""
    folder = tmp_path_factory.mktemp("toy")
    file = written(folder, tiny_llama, pairs_file)
    return file, run_comparison(read_config(str(file)), output_dir=str(folder / "whole"))


def test_every_pipeline_comes_to_its_figures_with_every_seed(toy: tuple[Path, Comparison]) -> None:
    found = json.loads((toy[1].folder / "compare.json").read_text())
    assert found["status"] == "done"
    assert found["failures"] == []
    assert [metric["id"] for metric in found["metrics"]][:2] == ["accuracy", "accuracy_sum"]
    assert found["equal"]["held_out_pairs"] == 10
    assert found["equal"]["train_pairs"] == 30
    for pipeline in found["pipelines"]:
        assert len(pipeline["scores"]["accuracy"]["per_seed"]) == 1
        assert pipeline["scores"]["accuracy"]["num_items"] == 10
        assert len([trial for trial in pipeline["trials"] if trial["chosen"]]) == len(pipeline["stages"])
        assert [curve["step"][-1] for curve in pipeline["curves"]] == [stage["steps"] for stage in pipeline["stages"]]
        assert len(pipeline["samples"]) == 6
    orpo, chain = found["pipelines"]
    assert (orpo["baseline"], chain["baseline"]) == (True, False)
    assert "against" not in orpo
    assert chain["against"]["accuracy"]["mean"] == pytest.approx(chain["scores"]["accuracy"]["mean"] - orpo["scores"]["accuracy"]["mean"])
    assert [stage["steps"] for stage in chain["stages"]] == [3, 3]


def test_every_stage_is_counted_in_the_cost(toy: tuple[Path, Comparison]) -> None:
    orpo, chain = toy[1].found["pipelines"]
    assert orpo["cost"]["total"]["policy_forwards"] == orpo["cost"]["total"]["policy_backwards"] == 6
    assert orpo["cost"]["total"]["reference_forwards"] == 0
    dpo = chain["cost"]["stages"][1]
    assert (dpo["policy_backwards"], dpo["reference_forwards"], dpo["models_in_memory"]) == (3, 8, 1), "30 pairs once, 4 at a time"
    assert chain["cost"]["total"]["tokens"] == sum(stage["tokens"] for stage in chain["cost"]["stages"])
    assert chain["cost"]["tuning"]["trials"] == 4
    assert chain["cost"]["total"]["peak_memory_gib"] > 0.1


def test_nothing_is_kept_that_no_stage_starts_from(toy: tuple[Path, Comparison]) -> None:
    stages = toy[1].folder / "stages"
    assert len(list(stages.iterdir())) == 9
    assert not list(stages.rglob("*.safetensors"))
    assert not list(stages.rglob("*.logps"))


def test_the_same_command_again_runs_nothing_and_says_the_same(toy: tuple[Path, Comparison]) -> None:
    file, done = toy
    times = {path: path.stat().st_mtime_ns for path in (done.folder / "stages").rglob("result.json")}
    again = run_comparison(read_config(str(file)), output_dir=str(done.folder))
    assert measured(again.found) == measured(done.found)
    assert {path: path.stat().st_mtime_ns for path in (done.folder / "stages").rglob("result.json")} == times


def test_another_comparison_in_the_same_folder_is_refused_with_what_changed(toy: tuple[Path, Comparison], tmp_path: Path) -> None:
    file, done = toy
    changed = tmp_path / "other.yaml"
    changed.write_text(
        file.read_text().replace("budget: 6 steps", "budget: 8 steps").replace("sft > dpo", "sft > ipo").replace("dpo:", "ipo:")
    )
    with pytest.raises(ConfigError, match="other settings or data") as caught:
        run_comparison(read_config(str(changed)), output_dir=str(done.folder))
    message = str(caught.value)
    assert "budget" in message
    assert "6 steps" in message
    assert "8 steps" in message
    assert "sft > ipo" in message
    assert "--fresh" in message


def test_one_folder_has_one_writer(toy: tuple[Path, Comparison]) -> None:
    file, done = toy
    with RunLock(done.folder), pytest.raises(RunLockedError):
        run_comparison(read_config(str(file)), output_dir=str(done.folder))


def test_a_comparison_that_lost_a_stage_makes_it_again_and_what_it_started_from(toy: tuple[Path, Comparison], tmp_path: Path) -> None:
    file, done = toy
    folder = tmp_path / "again"
    shutil.copytree(done.folder, folder)
    (lost,) = [path for path in (folder / "stages").glob("dpo-*") if json.loads((path / "result.json").read_text())["curve"]]
    shutil.rmtree(lost)
    before = {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("stages/*/result.json")}
    again = run_comparison(read_config(str(file)), output_dir=str(folder))
    assert measured(again.found) == measured(done.found)
    made = [name for name, when in before.items() if (folder / "stages" / name / "result.json").stat().st_mtime_ns != when]
    assert [name.split("-")[0] for name in made] == ["sft"], "its model had been deleted when it was no longer needed"
    assert (lost / "result.json").exists()

"""How a comparison goes on after failures, signals and a full disk, with stages that come to made-up results at once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.comparison import session, worker
from orpo.comparison.config import read_config
from orpo.comparison.run import Comparison, run_comparison
from orpo.comparison.worker import Work
from orpo.errors import InterruptedRun, NotFiniteError, StorageError

CONFIG = """\
model: {model}
data: {data}
holdout: 10
validation: 8
pipelines: [orpo, sft > dpo]
budget: 6 steps
seeds: 2
tune:
  orpo: {{learning_rate: [1e-3, 1e-2]}}
  sft: {{learning_rate: [1e-3, 1e-2]}}
  dpo: {{learning_rate: [1e-3, 1e-2]}}
settings: {{pairs_per_step: 4}}
"""


class Inline:
    """In place of processes: each stage runs when it is started, one at a time."""

    def __init__(self, jobs: int) -> None:
        self.running: dict[str, int] = {}

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def has_room(self) -> bool:
        return not self.running

    def start(self, work: Work) -> None:
        from rich.console import Console

        folder = Path(work.folder)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log:
            self.running[work.name] = worker._code_of(work, folder, Console(file=log))

    def ended(self, *, timeout: float) -> dict[str, int]:
        found, self.running = self.running, {}
        return found

    def ask_to_save(self) -> None:
        return None


@pytest.fixture
def compared(tiny_llama: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Comparison]:
    """Runs the comparison in one folder; `happens` is called with each stage's work before it ends, and may raise."""
    file = tmp_path / "made-up.yaml"
    monkeypatch.setattr(session, "Processes", Inline)

    def run(happens: Callable[[Work], object] = lambda _: None, *, more: str = "") -> Comparison:
        file.write_text(CONFIG.format(model=tiny_llama, data=pairs_file) + more)

        def stage_result(work: Work, folder: Path, _: object) -> dict[str, Any]:
            happens(work)
            if work.needs_model:
                (folder / "model").mkdir(exist_ok=True)
            return made_up(work)

        monkeypatch.setattr(worker, "stage_result", stage_result)
        monkeypatch.setattr(worker, "base_result", lambda work: {**made_up(work), "prompts": ["p"] * 10, "parameters": 1})
        return run_comparison(read_config(str(file)), output_dir=str(tmp_path / "folder"))

    return run


def made_up(work: Work) -> dict[str, Any]:
    """A result that follows from the seed and the learning rate of a stage."""
    config = work.resolved.config
    value = (config.seed + 100 * config.learning_rate) / 10
    names = ("accuracy", "accuracy_sum", "nll_loss", "logps/rejected", "reply_tokens")
    cost = dict.fromkeys(("num_pairs", "policy_forwards", "policy_backwards", "policy_tokens", "reference_forwards", "reference_tokens"), 5)
    cost |= {"models_in_memory": 1, "peak_memory_gib": 0.5, "training_seconds": 1.0, "reference_seconds": 0.0}
    items = {name: [value] * 10 for name in names}
    return {"cost": cost, "curve": [], "measured": {"items": items, "weights": {}, "replies": ["r"] * 10, "samples": 0}}


def is_final(work: Work, objective: str, seed: int) -> bool:
    return work.resolved.config.objective == objective and work.resolved.config.seed == seed


def test_a_stage_that_is_not_finite_is_named_the_others_go_on_and_it_is_not_tried_again(compared: Callable[..., Comparison]) -> None:
    def diverge(work: Work) -> None:
        if is_final(work, "dpo", 2):
            raise NotFiniteError("loss nan in step 3")

    done = compared(diverge)
    assert done.error is None
    assert done.found["status"] == "done"
    assert done.found["failures"] == [{"pipeline": "sft > dpo", "stage": 1, "seed": 2, "error": "loss nan in step 3"}]
    assert len(done.found["pipelines"][1]["scores"]["accuracy"]["per_seed"]) == 1
    tried: list[str] = []
    again = compared(lambda work: tried.append(work.name))
    assert tried == []
    assert again.found["failures"] == done.found["failures"]


def test_what_failed_otherwise_is_tried_again_by_the_same_command(compared: Callable[..., Comparison]) -> None:
    def fail(work: Work) -> None:
        if is_final(work, "sft", 1):
            raise RuntimeError("the machine was tired")

    done = compared(fail)
    assert [failure["error"] for failure in done.found["failures"]] == ["RuntimeError: the machine was tired"]
    assert len(done.found["pipelines"][1]["scores"]["accuracy"]["per_seed"]) == 1, "dpo with the same seed could not start"
    tried: list[str] = []
    again = compared(lambda work: tried.append(work.name.split("-")[0]))
    assert tried == ["sft", "dpo"]
    assert again.found["failures"] == []
    assert again.found["pipelines"][1]["scores"]["accuracy"]["per_seed"] == pytest.approx([0.2, 0.3]), "1e-2 was chosen"


def test_a_failed_trial_loses_and_a_pipeline_without_any_is_an_error(compared: Callable[..., Comparison]) -> None:
    def fail(work: Work) -> None:
        config = work.resolved.config
        if config.objective == "dpo" or (config.objective == "orpo" and config.learning_rate == 1e-2):
            raise NotFiniteError("loss inf")

    done = compared(fail)
    orpo, chain = done.found["pipelines"]
    assert [(trial["error"], trial["chosen"]) for trial in orpo["trials"]] == [(None, True), ("loss inf", False)]
    assert chain["scores"] == {}
    assert done.found["status"] == "failed"
    assert done.error is not None
    assert "loss inf" in str(done.error)
    assert done.error.exit_code == 1


def test_a_full_disk_stops_everything_and_the_same_command_goes_on(compared: Callable[..., Comparison]) -> None:
    done: list[str] = []

    def fill(work: Work) -> None:
        if len(done) == 4:
            raise StorageError("no space left")
        done.append(work.name)

    with pytest.raises(StorageError, match="no space left"):
        compared(fill)
    tried: list[str] = []
    assert compared(lambda work: tried.append(work.name)).found["failures"] == []
    assert len(tried) == 12 - 4
    assert not set(tried) & set(done)


def test_a_signal_leaves_a_comparison_that_is_running_and_goes_on(compared: Callable[..., Comparison], tmp_path: Path) -> None:
    done: list[str] = []

    def stop(work: Work) -> None:
        done.append(work.name)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun, match=r"stopped with \d+ of 13 stages done") as caught:
        compared(stop)
    assert caught.value.exit_code == 130
    assert json.loads((tmp_path / "folder" / "compare.json").read_text())["status"] == "running"
    tried: list[str] = []
    assert compared(lambda work: tried.append(work.name)).found["status"] == "done"
    assert len(tried) == 12 - 3


def test_only_models_that_a_stage_may_start_from_are_kept(compared: Callable[..., Comparison], tmp_path: Path) -> None:
    most = 0

    def count(work: Work) -> None:
        nonlocal most
        most = max(most, len(models(tmp_path)))

    compared(count)
    assert models(tmp_path) == []
    assert 1 <= most <= 3


def test_with_keep_models_those_that_end_a_pipeline_stay(compared: Callable[..., Comparison], tmp_path: Path) -> None:
    done = compared(more="keep_models: true\n")
    assert sorted(name.split("-")[0] for name in models(tmp_path)) == ["dpo", "dpo", "orpo", "orpo"]
    assert done.found["status"] == "done"


def models(tmp_path: Path) -> list[str]:
    return [path.parent.name for path in (tmp_path / "folder" / "stages").glob("*/model")]

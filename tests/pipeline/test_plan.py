"""What a run would need is known without its weights, and every setting that is offered fits by the same account."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orpo.errors import ConfigError
from orpo.pipeline.fitting import Wanted, advice_after_failure, fitting_text
from orpo.pipeline.plan import RunPlan, run_plan
from orpo.training.assemble import Plan
from orpo.training.config import resolve_config

# peft 0.21 reads an attribute that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def without_weights(tiny_llama: Path, tmp_path: Path) -> Path:
    """A model folder that holds a config and a tokenizer, and no weights."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))


def planned(model: Path, data: Path, free: int | None = None, **settings: Any) -> RunPlan:
    flags = {"model": str(model), "data": [str(data)], "pairs_per_step": 4, "dtype": "float32", **settings}
    return run_plan(resolve_config(flags=flags), free=free)


def test_a_folder_without_weights_can_be_planned_and_nothing_is_written(without_weights: Path, pairs_file: Path) -> None:
    before = sorted(path.name for path in without_weights.rglob("*"))
    plan = planned(without_weights, pairs_file)
    assert plan.fits
    assert sorted(path.name for path in without_weights.rglob("*")) == before
    assert plan.need.weights == pytest.approx(4 * plan.num_parameters, rel=0.01)


def test_the_work_is_that_of_the_pairs(without_weights: Path, tmp_path: Path) -> None:
    pair = {"prompt": "what is the capital?", "chosen": " it is a large city near the sea.", "rejected": " no."}
    data = tmp_path / "same.jsonl"
    data.write_text("".join(json.dumps({**pair, "prompt": f"{i} {pair['prompt']}"}) + "\n" for i in range(8)))
    work = planned(without_weights, data, template="raw").work
    one = work.longest_pair
    assert (work.num_pairs, work.max_steps, work.pairs_per_step) == (8, 2, 4)
    assert (work.tokens_per_step, work.num_tokens, work.largest_micro_batch) == (4 * one, 8 * one, 4 * one)
    assert (work.micro_batches_per_step, work.accumulates) == (1, False)
    prompt = round(work.shared_share / (1 - work.shared_share) * one)
    assert work.shared_share == pytest.approx(prompt / (one + prompt))
    assert work.padding_share == pytest.approx(1 - (one + prompt) / (2 * work.longest_row))
    halved = planned(without_weights, data, template="raw", tokens_per_micro_batch=2 * one).work
    assert (halved.micro_batches_per_step, halved.accumulates, halved.largest_micro_batch) == (2, True, 2 * one)


def test_where_memory_is_short_two_settings_are_offered_that_fit(without_weights: Path, pairs_file: Path) -> None:
    wide = planned(without_weights, pairs_file, tokens_per_micro_batch=4096, pairs_per_step=40)
    short = wide.need.new_bytes - 1
    plan = planned(without_weights, pairs_file, short, tokens_per_micro_batch=4096, pairs_per_step=40, gradient_checkpointing="off")
    assert not plan.fits
    assert len(plan.remedies) == 2
    assert "tokens_per_micro_batch" in plan.remedies[0].settings
    for remedy in plan.remedies:
        settings = {"tokens_per_micro_batch": 4096, "pairs_per_step": 40, "gradient_checkpointing": "off", **remedy.settings}
        assert planned(without_weights, pairs_file, short, **settings).need.new_bytes <= short
    text = fitting_text(plan.remedies)
    assert text.count("GiB") == 2
    assert "tokens_per_micro_batch: " in text


def test_where_nothing_fits_the_plan_says_so(without_weights: Path, pairs_file: Path) -> None:
    plan = planned(without_weights, pairs_file, free=1000)
    assert (plan.fits, plan.remedies, plan.checkpointing) == (False, (), True)
    assert "no setting fits" in fitting_text(())


def test_lora_is_offered_where_full_training_does_not_fit(make_tiny_llama: Any, pairs_file: Path, tmp_path: Path) -> None:
    model = make_tiny_llama(tmp_path / "wide", hidden=512, layers=2)
    full = planned(model, pairs_file)
    plan = planned(model, pairs_file, free=full.need.weights + full.need.optimizer)
    assert not plan.fits
    assert plan.remedies[0].settings["use_peft"] is True


def test_lora_trains_less_and_keeps_the_weights_frozen(without_weights: Path, pairs_file: Path) -> None:
    full, lora = planned(without_weights, pairs_file), planned(without_weights, pairs_file, use_peft=True, lora_r=2)
    assert lora.num_trained < lora.num_parameters - full.num_parameters + 1
    assert lora.need.optimizer == 8 * lora.num_trained < full.need.optimizer


def test_a_budget_below_the_longest_pair_is_refused_as_in_training(without_weights: Path, pairs_file: Path) -> None:
    with pytest.raises(ConfigError, match="the longest pair has"):
        planned(without_weights, pairs_file, tokens_per_micro_batch=8)


def test_the_plan_is_plain_json(without_weights: Path, pairs_file: Path) -> None:
    plan = planned(without_weights, pairs_file)
    read = json.loads(json.dumps(plan.as_dict()))
    memory = read["memory_bytes"]
    assert memory["peak"] == sum(memory[part] for part in plan.need.parts)
    assert read["fits"] is True
    assert read["gradient_checkpointing"] is False
    assert replace(plan, available_bytes=0).as_dict()["fits"] is False
    assert np.isfinite(read["padding_share"])


def test_after_running_out_of_memory_the_advice_needs_less_than_what_failed(without_weights: Path, pairs_file: Path) -> None:
    parts = np.tile([20, 10, 10], (400, 1))
    steps = Plan(num_pairs=400, pairs_per_step=100, steps_per_epoch=4, max_steps=4, tokens_per_micro_batch=4000)
    config = resolve_config(flags={"model": str(without_weights), "data": [str(pairs_file)]}).config
    wanted = Wanted(config, 512, (), torch.float32, "cpu", parts, steps)
    memory = wanted.memory()
    failed = memory.need(4000, checkpointing=False).new_bytes
    text = advice_after_failure(wanted, largest=4000, tokens=4000, checkpointing=False, free=2**40)
    tokens = int(text.split("tokens_per_micro_batch: ")[1].split()[0])
    assert 40 <= tokens < 4000
    assert memory.need(tokens, checkpointing=False).new_bytes <= 0.8 * failed
    assert "; or " in text

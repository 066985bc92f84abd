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
from transformers import AutoModelForSequenceClassification, GPT2Config

from orpo.cli.plan import show_plan
from orpo.engine.batching import micro_batches, step_pairs
from orpo.engine.dropout import dropout_rates
from orpo.engine.memory import Setting
from orpo.errors import ConfigError, OutOfMemoryError
from orpo.pipeline.fitting import (
    Wanted,
    advice_after_failure,
    fitting_text,
    remedies,
    run_need,
    settled,
    usable,
    warning_text,
)
from orpo.pipeline.outcome import _memory_errors
from orpo.pipeline.plan import RunPlan, run_plan
from orpo.training.assemble import Plan
from orpo.training.config import resolve_config
from orpo.training.weightless import model_builder

# peft 0.21 reads an attribute that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def without_weights(tiny_llama: Path, tmp_path: Path) -> Path:
    """A model folder that holds a config and a tokenizer, and no weights."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))


def planned(model: Path, data: Path, free: int | None = None, **settings: Any) -> RunPlan:
    flags = {"model": str(model), "data": [str(data)], "pairs_per_step": 4, "dtype": "float32", **settings}
    return run_plan(resolve_config(flags=flags), free=free)


def wanted_run(model: Path, data: Path, parts: Any, *, max_steps: int = 4, **settings: Any) -> Wanted:
    config = resolve_config(flags={"model": str(model), "data": [str(data)], "pairs_per_step": 100, **settings}).config
    per_step = config.pairs_per_step
    steps = Plan(
        num_pairs=len(parts),
        pairs_per_step=per_step,
        steps_per_epoch=-(-len(parts) // per_step),
        max_steps=max_steps,
        tokens_per_micro_batch=4000,
    )
    return Wanted(config, 512, (), torch.float32, "cpu", parts, steps)


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


def test_weights_in_4_bits_take_a_quarter_and_more_is_offered_where_lora_does_not_fit(
    make_tiny_llama: Any, pairs_file: Path, tmp_path: Path
) -> None:
    model = make_tiny_llama(tmp_path / "wide", hidden=512, layers=3, vocabulary=300)
    lora = planned(model, pairs_file, use_peft=True, lora_r=2, dtype="bfloat16")
    four = planned(model, pairs_file, use_peft=True, lora_r=2, dtype="bfloat16", load_in_4bit=True)
    assert four.num_parameters == lora.num_parameters
    assert 0.26 < four.need.weights / lora.need.weights < 0.36, "embeddings and adapters stay as they are"
    short = planned(model, pairs_file, lora.need.weights, use_peft=True, lora_r=2, dtype="bfloat16")
    assert not short.fits
    assert short.remedies[-1].settings["load_in_4bit"] is True


def test_a_reward_model_has_no_head_over_the_vocabulary(make_tiny_llama: Any, pairs_file: Path, tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "wide", vocabulary=300)
    scored, spoken = (planned(folder, pairs_file, objective=objective) for objective in ("reward", "orpo"))
    scorer = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    assert scored.num_parameters == scored.num_trained == sum(parameter.numel() for parameter in scorer.parameters())
    assert scored.need.new_bytes < spoken.need.new_bytes


@pytest.mark.parametrize(("way", "forwards", "line"), [("precomputed", 10, "once"), ("copy", 6, "a frozen copy")])
def test_the_reference_is_counted_and_said(
    way: str, forwards: int, line: str, without_weights: Path, pairs_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(without_weights, pairs_file, objective="dpo", reference=way, max_steps=6)
    assert (found.as_dict()["reference"], found.as_dict()["reference_forwards"]) == (way, forwards)
    show_plan(found)
    said = capsys.readouterr().out
    assert f"{found.passes['reference_tokens']:,} tokens in all" in said
    assert line in said
    show_plan(planned(without_weights, pairs_file))
    assert "reference  " not in capsys.readouterr().out


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
    wanted = wanted_run(without_weights, pairs_file, np.tile([20, 10, 10], (400, 1)))
    memory = wanted.memory()
    failed = memory.need(4000, checkpointing=False).new_bytes
    text = advice_after_failure(wanted, largest=4000, tokens=4000, checkpointing=False, free=2**40)
    tokens = int(text.split("tokens_per_micro_batch: ")[1].split()[0])
    assert 40 <= tokens < 4000
    assert memory.need(tokens, checkpointing=False).new_bytes <= 0.8 * failed
    assert "; or " in text


def test_the_model_that_is_counted_has_the_dropout_that_training_has(tmp_path: Path, pairs_file: Path) -> None:
    GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=96).save_pretrained(tmp_path)
    settings = {"model": str(tmp_path), "data": [str(pairs_file)]}
    off, on = (
        model_builder(resolve_config(flags={**settings, "disable_dropout": is_off}).config, 96, (), torch.float32)(False)
        for is_off in (True, False)
    )
    assert dropout_rates(off) == {}
    assert dropout_rates(on) != {}


def test_a_chunk_is_of_the_rows_that_the_models_head_has(make_tiny_llama: Any, pairs_file: Path, tmp_path: Path) -> None:
    wanted = wanted_run(make_tiny_llama(tmp_path / "model"), pairs_file, np.tile([20_000, 8_000, 9_000], (4, 1)))
    padded, bare = wanted._around().chunk_bytes, replace(wanted, num_tokens=1)._around().chunk_bytes
    assert padded == bare == 4 * 37_000 * wanted.memory().sizes.vocabulary


def test_the_largest_micro_batch_is_that_of_all_steps(without_weights: Path, pairs_file: Path) -> None:
    rng = np.random.default_rng(0)
    wanted = wanted_run(without_weights, pairs_file, rng.integers(1, 40, (500, 3)), pairs_per_step=3, max_steps=400)
    totals = wanted.parts.sum(axis=1).tolist()
    for budget in (120, 200, 260, 350):
        cut = [
            micro_batches([totals[i] for i in members], budget)[0]
            for members in (step_pairs(500, 3, seed=wanted.config.seed, step=step) for step in range(400))
        ]
        sizes = [
            sum(totals[i] for i in (step_pairs(500, 3, seed=wanted.config.seed, step=step)[j] for j in bins[0]))
            for step, bins in enumerate(cut)
        ]
        assert wanted.largest_micro_batch(budget) == max(sizes)
        assert wanted.accumulates(budget) == any(len(bins) > 1 for bins in cut)


def test_several_processes_share_a_step(without_weights: Path, pairs_file: Path) -> None:
    wanted = replace(wanted_run(without_weights, pairs_file, np.tile([20, 10, 10], (400, 1))), num_ranks=4)
    assert wanted._around().num_ranks == 4
    assert wanted.largest_micro_batch(4000) == 1000
    assert wanted.accumulates(1000)
    assert not wanted.accumulates(4000)


def test_a_run_that_does_not_fit_is_said_so_with_numbers_and_settings_that_fit(without_weights: Path, pairs_file: Path) -> None:
    parts = np.tile([20, 10, 10], (400, 1))
    wanted = wanted_run(without_weights, pairs_file, parts, tokens_per_micro_batch=4000, gradient_checkpointing="off")
    need = run_need(wanted, wanted.memory(), Setting(4000, False, fits=True)).new_bytes
    assert settled(wanted, 10 * need) == Setting(4000, False, fits=True)
    free = round(need / 0.9) - 10
    setting = settled(wanted, free)
    assert setting == Setting(4000, False, fits=False), "a tenth of free memory is kept back"
    text = warning_text(wanted, setting, free)
    assert f"needs about {need / 2**30:.1f} GiB more memory, {free / 2**30:.1f} GiB are free" in text
    tokens = int(text.split("tokens_per_micro_batch: ")[1].split()[0])
    assert wanted.memory().need(tokens, checkpointing=False).new_bytes <= usable(free)
    assert "no setting fits" in warning_text(wanted, setting, 1000)


@pytest.mark.parametrize(("overlong", "words"), [("drop", "drops 2 of 4 pairs"), ("cut-completion", "cuts 3 completions"), ("error", "")])
def test_a_shorter_max_length_says_what_it_takes_away(overlong: str, words: str, without_weights: Path, pairs_file: Path) -> None:
    parts = np.array([[20, 10, 10], [20, 10, 10], [40, 4000, 4000], [40, 10, 3000]])
    wanted = wanted_run(without_weights, pairs_file, parts, use_peft=True, overlong=overlong)
    memory = wanted.memory()
    free = int(0.9 * memory.need(8040, checkpointing=True).new_bytes)
    found = remedies(wanted, memory, 8040, free, tokens=8040, checkpointing=True)
    assert any(words in remedy.note for remedy in found) if words else found == ()


@pytest.mark.parametrize(
    "said", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", "can't allocate memory"]
)
def test_every_wording_of_out_of_memory_is_known_and_advice_that_fails_does_not_hide_it(said: str) -> None:
    def advice() -> str:
        raise OSError("too many open files")

    with pytest.raises(OutOfMemoryError, match="out of memory: ") as caught, _memory_errors(advice):
        raise RuntimeError(said)
    assert "halve tokens_per_micro_batch" in str(caught.value)
    with pytest.raises(RuntimeError, match="shapes differ"), _memory_errors(advice):
        raise RuntimeError("shapes differ")

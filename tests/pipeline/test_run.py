"""A run from its settings to its folder: what is written, what is counted, what stops it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import orpo.training.checkpointing as checkpointing
from orpo.errors import ConfigError, NotFiniteError, OutOfMemoryError, StorageError
from orpo.objectives import catalogue
from orpo.runs.summary import read_summary

CONTRACT = {
    "step",
    "split",
    "loss",
    "nll_loss",
    "logps/chosen",
    "logps/rejected",
    "log_odds_chosen",
    "rewards/accuracies",
    "num_pairs",
    "seconds",
}


def test_a_run_directory_holds_what_it_promises(train: Callable[..., Any], rows: Callable[..., Any]) -> None:
    run_dir = train(holdout=10, eval_steps=4, num_samples=2, max_new_tokens=5).run_dir
    names = {
        "config.resolved.yaml",
        "metrics.jsonl",
        "data_report.json",
        "samples.jsonl",
        "env.json",
        "summary.json",
        "README.md",
        "report.html",
    }
    assert names <= {path.name for path in run_dir.iterdir()}
    logged = rows(run_dir)
    train_rows, eval_rows = ([row for row in logged if row["split"] == split] for split in ("train", "eval"))
    assert [row["step"] for row in train_rows] == list(range(1, 9))
    assert [row["step"] for row in eval_rows] == [0, 4, 8]
    for row in logged:
        assert set(row) >= CONTRACT
    assert all({"grad_norm", "learning_rate", "num_tokens"} <= set(row) for row in train_rows)
    # 30 pairs of 40 are trained on; 8 steps of 4 go once round (8 steps of 4, 4, 4, 4, 4, 4, 4, 2).
    assert train_rows[-1]["num_pairs"] == 30
    assert eval_rows[0]["num_pairs"] == 10
    report = json.loads((run_dir / "data_report.json").read_text())
    assert (report["rows"], report["pairs"], report["trained_on"], report["held_out"]) == (40, 40, 30, 10)
    assert report["tokens"]["total"] == train_rows[-1]["num_tokens"] + sum_of_held_out(run_dir, report)
    summary = read_summary(run_dir)
    assert summary.sections["evaluation"]["after"]["accuracy"] == eval_rows[-1]["rewards/accuracies"]
    assert not any(path.suffix in (".bin", ".pkl") for path in run_dir.rglob("*"))


def test_sft_computes_the_rejected_answers_of_held_out_pairs_alone(
    train: Callable[..., Any], rows: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"objective": "sft", "holdout": 10, "eval_steps": 4, "num_samples": 2, "max_new_tokens": 5}
    run = train(**settings)
    monkeypatch.setattr(catalogue, "learns_chosen_alone", lambda name: False)
    whole = train("whole", **settings)
    for row, twin in zip(rows(run.run_dir), rows(whole.run_dir), strict=True):
        shown = {"logps/chosen", "nll_loss", "loss"} | ({"logps/rejected", "rewards/accuracies"} if row["split"] == "eval" else set())
        for name in shown:
            assert row[name] == pytest.approx(twin[name], abs=1e-5), name
        assert ("logps/rejected" in row) == (row["split"] == "eval")
    # The prompt once and the chosen answer; whole pairs have the rejected ones besides.
    cost, twin_cost = (one.summary.sections["cost"] for one in (run, whole))
    prepared = json.loads((run.run_dir / "data_report.json").read_text())["tokens"]
    assert cost["policy_tokens"] == cost["num_tokens"] < twin_cost["num_tokens"] <= prepared["total"]
    assert "told apart" in (run.run_dir / "report.html").read_text()


def sum_of_held_out(run_dir: Path, report: dict[str, Any]) -> int:
    """Tokens of the pairs that were held out: those of all 40 less those of the 30, counted anew from the file and the tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(run_dir / "model")
    held_out = {json.loads(line)["source"] for line in (run_dir / "samples.jsonl").read_text().splitlines()}
    assert len(held_out) == 2
    data = Path(report["files"][0]["path"])
    texts = [json.loads(line) for line in data.read_text().splitlines()]
    lengths = [
        len(tokenizer(r["prompt"])["input_ids"]) + sum(len(tokenizer(r[k])["input_ids"]) + 1 for k in ("chosen", "rejected")) for r in texts
    ]
    trained = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-2])["num_tokens"]
    assert sum(lengths) == report["tokens"]["total"]
    return sum(lengths) - trained


def test_the_loss_falls_and_the_saved_model_is_the_trained_one(
    train: Callable[..., Any], rows: Callable[..., Any], tiny_llama: Path
) -> None:
    run = train(max_steps=20, learning_rate=3e-3)
    losses = [row["loss"] for row in rows(run.run_dir)]
    assert losses[-1] < 0.8 * losses[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(run.model_dir)
    saved, base = load_file(run.model_dir / "model.safetensors"), load_file(tiny_llama / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())
    assert any(not torch.equal(saved[name], base[name]) for name in base)
    assert model.config.vocab_size == 512
    checkpoint = transformers.AutoModelForCausalLM.from_pretrained(run.run_dir / "checkpoint-20")
    assert torch.equal(checkpoint.model.embed_tokens.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize("vocabulary", [512, 300], ids=["spare rows", "rows are added"])
def test_an_adapter_loads_with_peft_and_its_new_tokens_have_trained_rows(
    train: Callable[..., Any], make_tiny_llama: Callable[..., Path], tmp_path: Path, vocabulary: int
) -> None:
    import peft

    model = str(make_tiny_llama(tmp_path / "base", vocabulary=vocabulary))
    settings = {"model": model, "use_peft": True, "lora_r": 4, "template": "chatml", "max_steps": 3, "seed": 7}
    run = train(**settings)
    assert run.model_dir.name == "adapter"
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model_dir)
    new = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert tokenizer.eos_token == "<|im_end|>"
    assert (max(new) >= vocabulary) == (vocabulary == 300)
    weights = load_file(run.model_dir / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) < 15_000, "the base's embeddings were copied into the adapter"
    rows = next(tensor for name, tensor in weights.items() if "embed_tokens" in name and "delta" in name)
    assert rows.shape == (2, 64)
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(run.model_dir)
    merged = loaded.merge_and_unload()
    assert torch.equal(merged.get_input_embeddings().weight[new], rows)
    assert torch.isfinite(merged(input_ids=torch.tensor([new])).logits).all()
    again = load_file(train("again", **settings).model_dir / "adapter_model.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.items())


def broken_model(tiny_llama: Path, folder: Path, value: float) -> Path:
    """A copy of the model with one weight set to `value`."""
    shutil.copytree(tiny_llama, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_model_that_gives_nan_stops_with_exit_5_and_publishes_nothing(
    train: Callable[..., Any], tiny_llama: Path, tmp_path: Path
) -> None:
    model = broken_model(tiny_llama, tmp_path / "broken", float("nan"))
    with pytest.raises(NotFiniteError, match="3rd step in a row") as caught:
        train(model=str(model), save_steps=100)
    assert caught.value.exit_code == 5
    assert "pairs.jsonl:" in str(caught.value)
    run_dir = tmp_path / "run"
    assert not list(run_dir.glob("checkpoint-*"))
    assert not (run_dir / "model").exists()
    assert read_summary(run_dir).exit_code == 5
    saved = json.loads((run_dir / "non-finite-step-1.json").read_text())
    assert len(saved["pairs"]) == 4


def test_one_bad_step_changes_neither_weights_nor_moments(
    train: Callable[..., Any], rows: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from orpo.training.trainer import PreferenceTrainer

    original = PreferenceTrainer._clip_grad_norm
    snapshots: list[list[torch.Tensor]] = []

    def poisoned(self: PreferenceTrainer, model: torch.nn.Module) -> Any:
        if self.state.global_step == 3:
            for parameter in model.parameters():
                parameter.grad.fill_(float("nan"))
        if self.state.global_step in (3, 4):
            moments = [state["exp_avg"].clone() for state in self.optimizer.state.values()]
            snapshots.append([p.detach().clone() for p in model.parameters()] + moments)
        return original(self, model)

    monkeypatch.setattr(PreferenceTrainer, "_clip_grad_norm", poisoned)
    run_dir = train(weight_decay=0.1).run_dir
    before, after = snapshots
    assert len(before) == 40  # 20 parameters, 20 first moments
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (run_dir / "non-finite-step-4.json").is_file()
    assert read_summary(run_dir).status == "done"
    assert rows(run_dir)[3]["non_finite"] == ["grad_norm"]


def test_a_full_disk_keeps_the_previous_checkpoint_and_exits_6(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = checkpointing.save_body

    def full(body: Any, tokenizer: Any, folder: Path, **more: Any) -> None:
        if "checkpoint-6" in str(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        original(body, tokenizer, folder, **more)

    monkeypatch.setattr(checkpointing, "save_body", full)
    with pytest.raises(StorageError) as caught:
        train()
    assert caught.value.exit_code == 6
    assert sorted(path.name for path in (tmp_path / "run").glob("*checkpoint*")) == ["checkpoint-2", "checkpoint-4"]
    assert not list((tmp_path / "run").glob(".staging*"))
    monkeypatch.undo()
    assert train().summary.status == "done"


def test_running_out_of_memory_names_two_settings_and_exits_7(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import orpo.engine.model as engine

    hidden = engine.packed_hidden

    def too_much(*arguments: Any) -> Any:
        if not torch.is_grad_enabled():  # the start-up check: it fits
            return hidden(*arguments)
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes.")

    monkeypatch.setattr(engine, "packed_hidden", too_much)
    with pytest.raises(OutOfMemoryError) as caught:
        train()
    assert caught.value.exit_code == 7
    assert "tokens_per_micro_batch" in str(caught.value)
    assert "gradient_checkpointing" in str(caught.value)
    assert read_summary(tmp_path / "run").status == "failed"


def test_gradient_checkpointing_changes_nothing_but_memory(train: Callable[..., Any], rows: Callable[..., Any]) -> None:
    plain = [row["loss"] for row in rows(train("plain", gradient_checkpointing="off").run_dir)]
    recomputed = [row["loss"] for row in rows(train("recomputed", gradient_checkpointing="on").run_dir)]
    assert recomputed == pytest.approx(plain, abs=1e-6)


def test_bf16_is_close_to_fp32_and_keeps_fp32_weights(train: Callable[..., Any], rows: Callable[..., Any]) -> None:
    exact = [row["loss"] for row in rows(train("exact").run_dir)]
    run = train("rounded", dtype="bfloat16")
    assert [row["loss"] for row in rows(run.run_dir)] == pytest.approx(exact, abs=0.02)
    assert [row["loss"] for row in rows(run.run_dir)] != exact
    assert all(tensor.dtype == torch.float32 for tensor in load_file(run.model_dir / "model.safetensors").values())


def test_a_tracker_of_transformers_is_started_through_report_to(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    class Tracker(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            seen.append(dict(logs or {}))

    monkeypatch.setitem(transformers.integrations.integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    monkeypatch.setattr("orpo.training.config_check._require_tracker", lambda name, places: None)
    train(report_to="tensorboard", max_steps=2)
    assert {"loss", "nll_loss", "rewards/accuracies", "grad_norm"} <= set(seen[0])


def test_a_model_with_a_new_end_token_stops_there_and_keeps_its_padding(train: Callable[..., Any], tiny_llama: Path) -> None:
    run = train(template="chatml", max_steps=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model_dir)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ends = transformers.GenerationConfig.from_pretrained(run.model_dir).eos_token_id
    assert ends[0] == end
    assert transformers.AutoTokenizer.from_pretrained(tiny_llama).eos_token_id in ends
    assert tokenizer.pad_token is None
    adapter = train("adapter", template="chatml", max_steps=2, use_peft=True)
    assert transformers.GenerationConfig.from_pretrained(adapter.model_dir).eos_token_id[0] == end


def test_a_model_without_safetensors_is_refused_before_anything_is_written(
    train: Callable[..., Any], tiny_llama: Path, tmp_path: Path
) -> None:
    model = tmp_path / "bare"
    shutil.copytree(tiny_llama, model)
    (model / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no weights as safetensors"):
        train(model=str(model))
    assert not (tmp_path / "run").exists()

"""ORPOTrainer beside the script of ten lines: other rows, other models, going on, and what it says of what it does not do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers

from orpo import ORPOConfig, ORPOTrainer
from orpo.errors import ConfigError, DataError, InterruptedRun

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def trainer(tiny_bos_llama: Path, preference_rows: list[dict[str, str]], tmp_path: Path) -> Callable[..., ORPOTrainer]:
    """A trainer of four steps of four pairs; settings of ORPOConfig and arguments of ORPOTrainer by their names."""

    def make(rows: list[Any] | None = None, **given: Any) -> ORPOTrainer:
        names = ORPOConfig.__dataclass_fields__
        settings = {"output_dir": str(tmp_path / "out"), "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-3}
        settings |= {"logging_steps": 1, "bf16": False} | {name: value for name, value in given.items() if name in names}
        beside = {name: value for name, value in given.items() if name not in names}
        arguments = {"model": str(tiny_bos_llama), "train_dataset": datasets.Dataset.from_list(rows or preference_rows), **beside}
        return ORPOTrainer(args=ORPOConfig(**settings), **arguments)

    return make


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def test_a_model_by_its_name_is_trained_and_other_pairs_are_evaluated(
    trainer: Callable[..., ORPOTrainer], preference_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    ours = trainer()
    seen: list[int] = []

    class Counting(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(state.global_step)

    ours.add_callback(Counting())
    with pytest.raises(ConfigError, match="not loaded before train"):
        _ = ours.model
    with pytest.raises(ConfigError, match="train\\(\\) first"):
        ours.evaluate()
    result = ours.train()
    assert (result.global_step, ours.state.global_step, seen) == (4, 4, [1, 2, 3, 4])
    metrics = ours.evaluate(datasets.Dataset.from_list(preference_rows[:3]), metric_key_prefix="other")
    assert metrics["other_num_pairs"] == 3
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        ours.evaluate()
    with pytest.raises(ConfigError, match="has trained already"):
        ours.train()
    ours.log_metrics("train", result.metrics)
    ours.save_metrics("train", result.metrics)
    ours.save_state()
    assert {"train_results.json", "all_results.json", "trainer_state.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    ours.save_model(str(tmp_path / "elsewhere"))
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "elsewhere")
    assert torch.equal(saved.get_input_embeddings().weight, ours.model.get_input_embeddings().weight)
    assert ours.is_world_process_zero()


MESSAGES = [
    {
        "prompt": [{"role": "user", "content": f"{i}: what is it?"}],
        "chosen": [{"role": "assistant", "content": "a large city" + "!" * i}],
        "rejected": [{"role": "assistant", "content": "no idea"}],
    }
    for i in range(4)
]
WHOLE = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in MESSAGES]
IMPLICIT = [{"chosen": f"{i} what is it? It is big.", "rejected": f"{i} what is it? No idea."} for i in range(4)]


@pytest.mark.parametrize(
    ("rows", "shape"),
    [(MESSAGES, "messages"), (WHOLE, "implicit-prompt-messages"), (IMPLICIT, "implicit-prompt-strings")],
    ids=["messages", "implicit-messages", "implicit-text"],
)
def test_rows_of_trls_other_forms_are_read(
    trainer: Callable[..., ORPOTrainer], tiny_chat_llama: Path, rows: list[Any], shape: str, tmp_path: Path
) -> None:
    import json

    trainer(rows, model=str(tiny_chat_llama), max_steps=1).train()
    report = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert (report["shape"], report["pairs"]) == (shape, 4)


def test_bad_rows_are_named_by_their_number(trainer: Callable[..., ORPOTrainer], preference_rows: list[dict[str, str]]) -> None:
    with pytest.raises(DataError, match="train_dataset:row 3"):
        trainer([*preference_rows[:2], {**preference_rows[2], "chosen": None}, *preference_rows[3:]]).train()


def test_a_peft_model_is_trained_as_it_is(trainer: Callable[..., ORPOTrainer], tiny_bos_llama: Path) -> None:
    import peft

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_bos_llama)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, use_rslora=True, target_modules=["o_proj"], task_type="CAUSAL_LM"))
    before = weights(adapted)
    ours = trainer(model=adapted)
    ours.train()
    changed = {name for name, weight in weights(adapted).items() if not torch.equal(weight, before[name])}
    assert ours.model is adapted
    assert changed
    assert all("o_proj.lora_" in name for name in changed)
    assert ours.resolved.config.lora_target_modules == ("o_proj",)


def test_an_interrupted_script_goes_on_to_the_same_weights(
    trainer: Callable[..., ORPOTrainer], tiny_bos_llama: Path, tmp_path: Path
) -> None:
    class Stopping(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                os.kill(os.getpid(), signal.SIGINT)

    def loaded() -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(tiny_bos_llama)

    whole = trainer(model=loaded(), output_dir=str(tmp_path / "whole"))
    whole.train()
    with pytest.raises(InterruptedRun):
        trainer(model=loaded(), callbacks=[Stopping()]).train()
    with pytest.raises(ConfigError, match="newest valid checkpoint"):
        trainer(model=loaded()).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-9"))
    resumed = trainer(model=loaded())
    assert resumed.train(resume_from_checkpoint=True).global_step == 4
    assert len([row for row in resumed.state.log_history if "loss" in row]) == 4
    expected = weights(whole.model)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(resumed.model).items())
    again = trainer(model=loaded())
    assert again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4")).global_step == 4
    assert not (tmp_path / "out.old-1").exists()


def test_a_script_run_twice_starts_over_and_keeps_the_first(trainer: Callable[..., ORPOTrainer], tmp_path: Path) -> None:
    trainer(max_steps=1).train()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    again = trainer(max_steps=1)
    again.train()
    assert again.state.global_step == 1
    assert (tmp_path / "out.old-1" / "mine.txt").read_text() == "kept"


def peft_config(**settings: Any) -> Any:
    import peft

    return peft.LoraConfig(task_type="CAUSAL_LM", **settings)


def test_peft_chooses_layers_where_none_are_named(trainer: Callable[..., ORPOTrainer]) -> None:
    config = trainer(peft_config=peft_config(r=4)).resolved.config
    assert (config.use_peft, config.lora_r, config.lora_alpha, config.lora_target_modules) == (True, 4, 8, ("q_proj", "v_proj"))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model is missing"),
    ({"model": 3}, "model is a int"),
    ({"train_dataset": None}, "train_dataset is missing"),
    ({"train_dataset": [{"prompt": "a"}]}, "train_dataset is a list"),
    ({"train_dataset": datasets.DatasetDict()}, "name one split"),
    ({"eval_dataset": {"a": 1}}, "eval_dataset is a dict"),
    ({"eval_strategy": "steps"}, "eval_strategy is steps, but there is no eval_dataset"),
    ({"processing_class": "llama"}, "processing_class is a str"),
    ({"data_collator": print}, "data_collator is given"),
    ({"model_init": print}, "model_init is given"),
    ({"compute_metrics": print}, "compute_metrics is given"),
    ({"optimizers": (object(), None)}, "optimizers is given"),
    ({"peft_config": "lora"}, "peft_config is a str"),
    ({"peft_config": peft_config(use_dora=True)}, "peft_config sets use_dora"),
    ({"peft_config": peft_config(modules_to_save=["lm_head"], bias="all")}, "peft_config sets bias, modules_to_save"),
    ({"peft_config": peft_config(target_modules=".*q_proj")}, "peft_config.target_modules is '.*q_proj'"),
    ({"peft_config": peft_config(target_modules=["nothing"])}, "lora_target_modules names 'nothing'"),
    ({"learning_rate": "fast"}, "ORPOConfig: learning_rate is 'fast'"),
    ({"max_steps": 2, "warmup_steps": 5}, "a warm-up of 5 steps does not end within 2"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED, ids=[row[1] for row in REFUSED])
def test_what_cannot_be_used_is_refused_and_says_what_to_give(
    trainer: Callable[..., ORPOTrainer], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        trainer(**given).train()
    assert said in str(caught.value)
    assert "  to fix: " in str(caught.value)


def test_settings_that_changed_after_the_config_was_made_are_looked_at_again(trainer: Callable[..., ORPOTrainer]) -> None:
    ours = trainer()
    ours.args.push_to_hub = True
    with pytest.raises(ConfigError, match="never pushes"):
        ORPOTrainer(model=ours._name, args=ours.args, train_dataset=ours.train_dataset)


def test_a_config_of_trl_is_told_from_ours(trainer: Callable[..., ORPOTrainer], tiny_bos_llama: Path) -> None:
    with pytest.raises(ConfigError, match="from orpo import ORPOConfig"):
        ORPOTrainer(model=str(tiny_bos_llama), args=transformers.TrainingArguments("out"), train_dataset=datasets.Dataset.from_list([{}]))  # type: ignore[arg-type]


def test_an_adapter_beside_an_adapted_model_is_refused(trainer: Callable[..., ORPOTrainer], tiny_bos_llama: Path) -> None:
    import peft

    adapted = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(tiny_bos_llama), peft_config(r=2))
    with pytest.raises(ConfigError, match="the model has adapters, and peft_config is given"):
        trainer(model=adapted, peft_config=peft_config(r=2))


def test_quantised_and_spread_models_are_refused(trainer: Callable[..., ORPOTrainer], tiny_bos_llama: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_bos_llama)
    model.hf_device_map = {"a": 0, "b": 1}
    with pytest.raises(ConfigError, match="spread over several devices"):
        trainer(model=model)
    model.hf_device_map, model.is_loaded_in_4bit = {}, True
    with pytest.raises(ConfigError, match="weights are quantised"):
        trainer(model=model)


def test_pushing_is_refused_with_what_to_do(trainer: Callable[..., ORPOTrainer]) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.model\.push_to_hub"):
        trainer().push_to_hub()


def test_a_name_that_is_not_there_says_what_is(trainer: Callable[..., ORPOTrainer]) -> None:
    ours = trainer()
    with pytest.raises(AttributeError, match=r"has no 'predict'; it has .*evaluate.*train"):
        ours.predict  # noqa: B018
    assert not hasattr(ours, "create_optimizer")

"""One script, run with TRL's imports and with ours: the same losses, before a step and after, and a file that reads back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]

STEPS = 6
ROWS_A_STEP = 8  # all of them, so that the order in which each side draws them does not matter

SCRIPT = """
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(MODEL)
tokenizer = AutoTokenizer.from_pretrained(MODEL)
dataset = Dataset.from_list(ROWS)

args = ORPOConfig(
    output_dir=OUT,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=GRADIENT_ACCUMULATION,
    max_steps=STEPS,
    learning_rate=1e-3,
    warmup_steps=2,
    beta=0.2,
    max_length=256,
    logging_steps=1,
    eval_strategy="steps",
    eval_steps=3,
    save_strategy="no",
    bf16=False,
    use_cpu=True,
    report_to="none",
    remove_unused_columns=False,
)
trainer = ORPOTrainer(
    model=model,
    args=args,
    train_dataset=dataset,
    eval_dataset=dataset.select(range(4)),
    processing_class=tokenizer,
    peft_config=LoraConfig(**LORA) if LORA else None,
)
result = trainer.train()
metrics = trainer.evaluate()
trainer.save_model(OUT)
"""
THEIRS, OURS = "from trl.experimental.orpo import ORPOConfig, ORPOTrainer\n", "from orpo import ORPOConfig, ORPOTrainer\n"


def run(imports: str, script: str, **names: Any) -> dict[str, Any]:
    """The names that a script leaves."""
    space = dict(names)
    exec(compile(imports + script, "script.py", "exec"), space)
    return space


@pytest.fixture(scope="module")
def both(tiny_bos_llama: Path, preference_rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What the script leaves with TRL's imports and with ours."""
    kept: dict[bool, Any] = {}

    def make(lora: dict[str, Any] | None = None) -> Any:
        if bool(lora) not in kept:
            folder = tmp_path_factory.mktemp("scripts")
            names = {"MODEL": str(tiny_bos_llama), "ROWS": preference_rows, "STEPS": STEPS, "LORA": lora}
            # TRL averages each micro-batch by itself: one that holds the whole step is what can be compared.
            script = SCRIPT.replace("per_device_train_batch_size=4", f"per_device_train_batch_size={ROWS_A_STEP}")
            kept[bool(lora)] = [
                run(imports, script, OUT=str(folder / side), GRADIENT_ACCUMULATION=1, **names)
                for imports, side in ((THEIRS, "theirs"), (OURS, "ours"))
            ]
        return kept[bool(lora)]

    return make


LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def logged(left: dict[str, Any], name: str) -> list[float]:
    return [row[name] for row in left["trainer"].state.log_history if name in row]


@pytest.mark.parametrize("lora", [None, LORA], ids=["all-weights", "lora"])
def test_the_losses_are_those_of_trl(both: Callable[..., Any], lora: dict[str, Any] | None) -> None:
    theirs, ours = both(lora)
    for name in ("loss", "nll_loss", "log_odds_ratio", "rewards/chosen", "logps/rejected"):
        found, expected = logged(ours, name), logged(theirs, name)
        assert len(found) == len(expected) == STEPS
        assert found[0] == pytest.approx(expected[0], abs=1e-5), name
        assert found == pytest.approx(expected, abs=1e-4), name
    assert logged(ours, "loss")[-1] < logged(ours, "loss")[0] - 0.005
    assert logged(ours, "learning_rate") == pytest.approx(logged(theirs, "learning_rate"))


@pytest.mark.parametrize("lora", [None, LORA], ids=["all-weights", "lora"])
def test_so_are_the_held_out_figures_and_what_train_returns(both: Callable[..., Any], lora: dict[str, Any] | None) -> None:
    theirs, ours = both(lora)
    for name in ("eval_loss", "eval_nll_loss", "eval_rewards/accuracies", "eval_rewards/margins"):
        assert ours["metrics"][name] == pytest.approx(theirs["metrics"][name], abs=1e-4), name
    assert ours["result"].global_step == theirs["result"].global_step == STEPS
    assert ours["result"].training_loss == pytest.approx(theirs["result"].training_loss, abs=1e-4)
    assert set(theirs["result"].metrics) <= set(ours["result"].metrics)


def test_the_model_of_the_script_is_trained_in_place_and_is_what_was_saved(both: Callable[..., Any]) -> None:
    from transformers import AutoModelForCausalLM

    _, ours = both()
    assert ours["trainer"].model is ours["model"]
    for folder in (ours["OUT"], f"{ours['OUT']}/model"):
        saved = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        assert all(torch.equal(weight, saved[name]) for name, weight in ours["model"].state_dict().items())
    tokens = ours["tokenizer"]("0: what is", return_tensors="pt")
    assert ours["model"].generate(**tokens, max_new_tokens=3, do_sample=False).shape[1] > tokens["input_ids"].shape[1]


def test_the_adapter_that_was_saved_gives_the_trained_log_probs(both: Callable[..., Any], tiny_bos_llama: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, ours = both(LORA)
    ids = torch.arange(5, 25)[None]
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_bos_llama), ours["OUT"])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, ours["trainer"].model(ids).logits, rtol=0, atol=1e-6)
    assert {name for name, weight in ours["trainer"].model.named_parameters() if weight.requires_grad} == {
        f"base_model.model.model.layers.{layer}.self_attn.{kind}.lora_{part}.default.weight"
        for layer in (0, 1)
        for kind in ("q_proj", "v_proj")
        for part in "AB"
    }


def test_the_run_is_an_ordinary_run(both: Callable[..., Any]) -> None:
    from orpo.runs.summary import read_summary

    _, ours = both()
    folder = Path(ours["OUT"])
    assert {"report.html", "metrics.jsonl", "data_report.json", "config.resolved.yaml", "model"} <= {path.name for path in folder.iterdir()}
    assert read_summary(folder).sections["evaluation"]["after"]["loss"] == pytest.approx(ours["metrics"]["eval_loss"], abs=1e-6)
    resolved = (folder / "config.resolved.yaml").read_text()
    for line in (
        "preset: trl  # ORPOConfig (as ORPOTrainer)",
        "beta: 0.2",
    ):
        assert line in resolved

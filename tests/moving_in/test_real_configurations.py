"""A configuration as each tool's users write it: which tool it is, what it becomes, and that `orpo` reads the result without a warning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orpo.moving_in.foreign_file import read_foreign
from orpo.moving_in.recognised import recognised
from orpo.moving_in.translation import MovedIn, moved_in
from orpo.moving_in.written import yaml_text
from orpo.objectives.catalogue import PRESET_NOTES
from orpo.training.config import resolve_config

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixtures in a folder of their own, which commands run in."""
    shutil.copytree(FIXTURES, tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")


def moved(file: str) -> MovedIn:
    found = read_foreign(file)
    return moved_in(recognised(found, file=file)[0], found)


def names(found: MovedIn, group: Any) -> set[str]:
    return {name for row in found.of(group) if row.is_given for name in row.written.split(" x ")}


EXPECTED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "trl-orpo.yaml": (
        "TRL",
        {
            "model": "Qwen/Qwen2.5-1.5B",
            "data": ("trl-lib/ultrafeedback_binarized",),
            "eval_data": ("trl-lib/ultrafeedback_binarized:test",),
            "objective": "orpo",
            "preset": "trl",
            "learning_rate": 5e-5,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
            "num_train_epochs": 2.0,
            "pairs_per_step": 32,
            "max_length": 1536,
            "overlong": "cut-completion",
            "dtype": "bfloat16",
            "eval_steps": 200,
            "save_steps": 200,
            "save_total_limit": 3,
            "logging_steps": 5,
            "use_peft": True,
            "lora_r": 32,
            "lora_alpha": 64,
            "lora_dropout": 0.05,
            "lora_target_modules": ("q_proj", "k_proj", "v_proj", "o_proj"),
            "seed": 42,
            "output_dir": "out/qwen-orpo",
        },
        {"beta": 0.2, "nll_over": "prompt+completion", "nll_average": "token"},
    ),
    "trl-dpo.yaml": (
        "TRL",
        {
            "data": ("trl-lib/ultrafeedback_binarized:train",),
            "holdout": 0.02,
            "objective": "dpo",
            "reference": "precomputed",
            "max_steps": 1000,
            "pairs_per_step": 32,
            "learning_rate": 1e-6,
            "max_length": 1024,
            "save_steps": 500,
        },
        {"beta": 0.05, "label_smoothing": 0.0},
    ),
    "llama-factory-orpo.yaml": (
        "LLaMA-Factory",
        {
            "model": "meta-llama/Llama-3.2-3B-Instruct",
            "data": ("data/support.json",),
            "columns": "instruction=question,input=context,chosen=good,rejected=bad",
            "holdout": 0.05,
            "objective": "orpo",
            "preset": "llama-factory",
            "learning_rate": 8e-6,
            "warmup_steps": 0.05,
            "pairs_per_step": 8,
            "max_length": 3072,
            "eval_steps": 250,
            "save_steps": 500,
            "lora_r": 16,
            "lora_alpha": 32,
            "lora_target_modules": ("q_proj", "v_proj"),
        },
        {"beta": 0.25, "nll_over": "completion", "nll_average": "sequence"},
    ),
    "axolotl-orpo.yaml": (
        "Axolotl",
        {
            "model": "mistralai/Mistral-7B-v0.3",
            "data": ("an-org/preferences:train", "data/more.jsonl"),
            "holdout": 0.05,
            "template": "chatml",
            "preset": "trl",
            "pairs_per_step": 8,
            "max_length": 4096,
            "overlong": "drop",
            "learning_rate": 2e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 10,
            "optim": "adamw_torch_fused",
            "use_peft": True,
            "lora_target_modules": "all-linear",
            "save_total_limit": 4,
        },
        {"beta": 0.1, "nll_over": "prompt+completion", "nll_average": "token"},
    ),
    "axolotl-dpo.yaml": (
        "Axolotl",
        {
            "objective": "dpo",
            "columns": "prompt=question,chosen=good,rejected=bad",
            "use_peft": False,
            "warmup_steps": 0.1,
            "dtype": "bfloat16",
        },
        {"beta": 0.05},
    ),
}


@pytest.mark.parametrize("file", EXPECTED)
def test_a_configuration_is_recognised_and_means_what_it_meant(file: str, there: None) -> None:
    tool, settings, options = EXPECTED[file]
    found = moved(file)
    config = found.resolved().config
    assert found.tool.name == tool
    assert {name: getattr(config, name) for name in settings} == settings
    assert {name: config.objective_options[name] for name in options} == options


@pytest.mark.parametrize("file", EXPECTED)
def test_the_text_reads_back_as_the_same_settings_without_a_warning(file: str, there: None, tmp_path: Path) -> None:
    found = moved(file)
    (tmp_path / "orpo.yaml").write_text(yaml_text(found, file=file, told_by=found.tool.marks))
    read = resolve_config(file=tmp_path / "orpo.yaml")
    assert read.config == found.resolved().config
    preset = read.config.preset
    assert read.notes == ((f"preset {preset}: {PRESET_NOTES[preset]}",) if preset else ())


@pytest.mark.parametrize("file", EXPECTED)
def test_every_setting_of_the_file_is_in_the_text_or_has_no_value(file: str, there: None) -> None:
    text = yaml_text(moved(file), file=file, told_by=("a",))
    silent = {"save_strategy", "gradient_accumulation_steps", "dataset_dir", "pref_loss", "fp16", "wandb_project", "loss_type", "report_to"}
    silent |= {"eval_strategy", "bf16"}  # their steps and their dtype are there
    for setting in read_foreign(file):
        assert setting.name in text or setting.value is None or setting.name in silent, setting.name


LISTED = [
    ("trl-orpo.yaml", "changed", {"per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "output_dir"}),
    ("trl-orpo.yaml", "unneeded", {"attn_implementation", "gradient_checkpointing_kwargs", "max_prompt_length", "push_to_hub"}),
    ("trl-orpo.yaml", "unsupported", set()),
    ("llama-factory-orpo.yaml", "changed", {"template", "cutoff_len", "dataset", "stage dpo, pref_loss orpo"}),
    ("llama-factory-orpo.yaml", "unneeded", {"flash_attn", "neat_packing", "ddp_timeout", "overwrite_cache"}),
    ("llama-factory-orpo.yaml", "unsupported", {"max_samples"}),
    ("axolotl-orpo.yaml", "changed", {"rl", "micro_batch_size", "optimizer", "evals_per_epoch", "saves_per_epoch"}),
    (
        "axolotl-orpo.yaml",
        "unneeded",
        {"sample_packing", "pad_to_sequence_len", "plugins", "liger_rope", "special_tokens", "train_on_inputs"},
    ),
    ("axolotl-orpo.yaml", "unsupported", set()),
]


@pytest.mark.parametrize(("file", "group", "expected"), LISTED, ids=[f"{row[0]}-{row[1]}" for row in LISTED])
def test_what_did_not_carry_over_is_listed_in_its_group(file: str, group: Any, expected: set[str], there: None) -> None:
    found = names(moved(file), group)
    assert found >= expected
    if group == "unsupported":
        assert found == expected


def test_the_rows_of_a_llama_factory_dataset_are_read_by_the_columns_that_an_import_names(there: None) -> None:
    from orpo.data.checks import check_data
    from orpo.data.columns import parse_columns

    config = moved("llama-factory-orpo.yaml").resolved().config
    data = check_data(config.data, columns=parse_columns(str(config.columns)))
    data.raise_if_errors()
    assert (data.report.pairs, data.shapes[0].name, data.shapes[0].is_chat) == (3, "alpaca-ranking", True)


# peft 0.21 reads an attribute that transformers 5.23 renamed.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_the_plan_of_an_import_is_made(there: None, tiny_llama: Path, tmp_path: Path) -> None:
    from orpo.pipeline.plan import run_plan

    text = Path("llama-factory-orpo.yaml").read_text().replace("meta-llama/Llama-3.2-3B-Instruct", str(tiny_llama))
    Path("mine.yaml").write_text(text.replace("val_size: 0.05", "val_size: 1").replace("cutoff_len: 3072", "cutoff_len: 1024"))
    found = moved("mine.yaml")
    Path("orpo.yaml").write_text(yaml_text(found, file="mine.yaml", told_by=("stage",)) + "template: chatml\n")
    plan = run_plan(resolve_config(file="orpo.yaml"))
    assert (plan.work.num_pairs, plan.work.pairs_per_step, plan.data["held_out"]) == (2, 8, 1)

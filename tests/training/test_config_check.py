"""Settings that contradict, names that are unknown, and the notes about what is allowed and unusual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orpo.errors import ConfigError
from orpo.training import config_check
from orpo.training.config import TrainConfig, check_config, resolve_config

BASE = "model: m\ndata: d.jsonl\n"
"""Two lines: what a test adds begins at line 3."""


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that places read `orpo.yaml:3`."""
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("")
    Path("train.jsonl").write_text("{}\n")


def notes(text: str, **flags: object) -> tuple[str, ...]:
    """The notes for BASE and `text`."""
    Path("orpo.yaml").write_text(BASE + text)
    return resolve_config(file="orpo.yaml", flags=flags).notes


def error(text: str, **flags: object) -> str:
    """The message of the ConfigError for BASE and `text`; its exit code is 2."""
    with pytest.raises(ConfigError) as caught:
        notes(text, **flags)
    assert caught.value.exit_code == 2
    return str(caught.value)


CONTRADICTIONS = [
    # text after BASE, flags, the beginning of the message, what it must say beside
    (
        "max_steps: 5\nnum_train_epochs: 2\n",
        {},
        "orpo.yaml:3: max_steps (orpo.yaml:3) and num_train_epochs (orpo.yaml:4) contradict",
        "remove one",
    ),
    (
        "",
        {"max_steps": 5, "num_train_epochs": 1.0},
        "--max-steps: max_steps (flag --max-steps) and num_train_epochs (flag --num-",
        "remove one",
    ),
    ("holdout: 0.1\neval_data: e\n", {}, "orpo.yaml:3: holdout (orpo.yaml:3) and eval_data (orpo.yaml:4) contradict", "remove one"),
    (
        "lora_r: 8\n",
        {},
        "orpo.yaml:3: lora_r (orpo.yaml:3) and use_peft contradict: without use_peft there are no adapters",
        "use_peft: true",
    ),
    (
        "lora_dropout: 0.1\n",
        {"use_peft": False},
        "orpo.yaml:3: lora_dropout (orpo.yaml:3) and use_peft (flag --use-peft) contra",
        "set use_peft: true",
    ),
    (
        "lora_target_modules: [q]\n",
        {},
        "orpo.yaml:3: lora_target_modules (orpo.yaml:3) and use_peft contradict",
        "or remove lora_target_modules",
    ),
    ("use_peft: true\nlora_r: 0\n", {}, "orpo.yaml:4: lora_r is 0", "at least 1"),
    ("use_peft: true\nlora_dropout: 1.0\n", {}, "orpo.yaml:4: lora_dropout is 1.0", "at least 0 and below 1"),
    ("use_peft: true\nlora_dropout: -0.1\n", {}, "orpo.yaml:4: lora_dropout is -0.1", "at least 0 and below 1"),
    (
        "max_steps: 50\nwarmup_steps: 60\n",
        {},
        "orpo.yaml:4: warmup_steps (orpo.yaml:4) and max_steps (orpo.yaml:3) contradict",
        "lower warmup_steps",
    ),
    (
        "lr_scheduler_type: constant\nwarmup_steps: 9\n",
        {},
        "orpo.yaml:3: lr_scheduler_type (orpo.yaml:3) and warmup",
        "constant_with_warmup",
    ),
    (
        "lr_scheduler_type: polynomial\nlearning_rate: 1e-7\n",
        {},
        "orpo.yaml:4: learning_rate (orpo.yaml:4) and lr_sched",
        "raise learning_rate",
    ),
    (
        "optim: sgd\nadam_beta1: 0.8\n",
        {},
        "orpo.yaml:4: adam_beta1 (orpo.yaml:4) and optim (orpo.yaml:3) contradict: sgd",
        "remove adam_beta1",
    ),
    ("preset: trl\nobjective: sft\n", {}, "orpo.yaml:3: preset (orpo.yaml:3) and objective (orpo.yaml:4) contradict", "objective: orpo"),
    ("eval_steps: 100\n", {}, "orpo.yaml:3: eval_steps (orpo.yaml:3) is 100, but neither eval_data nor holdout", "add holdout: 0.1"),
    ("output_dir: a-file\n", {}, "orpo.yaml:3: output_dir a-file is a file", "name a folder"),
    ("report_to: wandbb\n", {}, "orpo.yaml:3: report_to names 'wandbb'", "did you mean wandb?"),
    ("report_to: all\n", {}, "orpo.yaml:3: report_to names 'all'", "expected: none, or of clearml"),
    ("objective: sft\nodds_temperature: 1\n", {}, "orpo.yaml:4: objective sft has no option odds_temperature", "nll_over, nll_average"),
    ("beta: 0.1\n", {"objective": "sft"}, "orpo.yaml:3: objective sft has no option beta: it belongs to orpo, odds, simpo", "or ulma"),
    ("", {"weight": 0.1}, "--weight: objective orpo has no option weight: it belongs to pro\n", "remove weight, or set objective to pro"),
    ("", {"margin": 1.0, "objective": "dpo"}, "--margin: objective dpo has no option margin: it belongs to reward\n", "to reward"),
    ("temperature: one\nobjective: reward\n", {}, "orpo.yaml:3: objective reward has no option temperature: it belongs to pro\n", "to pro"),
    ("", {"beta": -1.0}, "--beta: beta is -1.0", "at least 0"),
    ("pref_beta: -1\n", {}, "orpo.yaml:3: beta (pref_beta) is -1", "at least 0"),
    ("", {"tokens_per_micro_batch": "4k"}, "--tokens-per-micro-batch: tokens_per_micro_batch is '4k'", "a whole number, or auto"),
]


@pytest.mark.parametrize(("text", "flags", "beginning", "beside"), CONTRADICTIONS, ids=[row[2][:60] for row in CONTRADICTIONS])
def test_settings_that_contradict_are_refused_naming_both_and_their_places(
    text: str, flags: dict[str, Any], beginning: str, beside: str
) -> None:
    message = error(text, **flags)
    assert message.startswith(beginning)
    assert beside in message
    assert "  to fix: " in message


def test_without_model_or_data_it_is_said_how_to_give_them() -> None:
    with pytest.raises(ConfigError, match=r"^no model is given(.|\n)*--model MODEL"):
        resolve_config(flags={"data": "d"})
    with pytest.raises(ConfigError, match=r"^no data are given(.|\n)*--data FILE"):
        resolve_config(flags={"model": "m"})


@pytest.mark.parametrize("other", ["train.jsonl", "./train.jsonl", "folder/../train.jsonl"])
def test_the_same_file_in_data_and_eval_data_is_refused_however_it_is_written(other: str) -> None:
    Path("folder").mkdir()
    message = error(f"eval_data: {other}\n", data=["train.jsonl", "more.jsonl"])
    assert message.startswith("orpo.yaml:3: ")
    assert "train.jsonl is in data (flag --data) and in eval_data (orpo.yaml:3)" in message
    assert "holdout: 0.1" in message


def test_the_same_hub_id_in_both_is_refused_and_another_split_is_not() -> None:
    assert "org/name is in data" in error("eval_data: org/name\n", data=["org/name"])
    assert notes("eval_data: org/name:test\n", data=["org/name:train"]) == ()


def test_a_tracker_that_is_not_installed_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_check.importlib.util, "find_spec", lambda name: None)
    message = error("report_to: comet_ml\n")
    assert message.startswith("orpo.yaml:3: report_to names comet_ml, which is not installed")
    assert "pip install comet-ml" in message


@pytest.mark.parametrize("written", ["wandb", "[wandb]", "'wandb,mlflow'", "[wandb, mlflow]"])
def test_trackers_are_a_name_or_several(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_check.importlib.util, "find_spec", lambda name: name)
    Path("orpo.yaml").write_text(f"{BASE}report_to: {written}\n")
    assert resolve_config(file="orpo.yaml").config.report_to == ("wandb", "mlflow")[: 1 + ("mlflow" in written)]


UNKNOWN = [
    ("learning_rat", "did you mean learning_rate?"),
    ("Beta", "did you mean beta?"),
    ("pref_bta", "did you mean pref_beta (beta here)?"),
    ("sequence_length", "did you mean sequence_len (max_length here)?"),
    ("odds_temprature", "did you mean odds_temperature?"),
    ("zzzzzz", "remove it"),
    ("objective_options", "give its entries by themselves, such as beta"),
]


@pytest.mark.parametrize(("name", "fix"), UNKNOWN)
def test_an_unknown_name_is_refused_with_its_line_and_the_nearest(name: str, fix: str) -> None:
    message = error(f"seed: 1\n{name}: 3\n")
    assert message.startswith(f"orpo.yaml:4: there is no setting '{name}'")
    assert message.endswith(f"to fix:   {fix}")


ALLOWED = [
    ("beta: 0\n", "beta is 0: the odds ratio has no weight, so this equals SFT on the chosen answers"),
    ("learning_rate: 5e-4\n", "learning_rate 0.0005 is far above the 1e-6 to 8e-6 of published ORPO runs on all weights"),
    (
        "learning_rate: 1e-7\n",
        "learning_rate 1e-07 is far below the 1e-6 to 8e-6 of published ORPO runs on all weights: little will change",
    ),
    ("learning_rate: 5e-3\nuse_peft: true\n", "learning_rate 0.005 is far above the 8e-6 to 2e-4 of published ORPO runs with LoRA"),
    ("learning_rate: 1e-6\nuse_peft: true\n", "learning_rate 1e-06 is far below the 8e-6 to 2e-4 of published ORPO runs with LoRA"),
]


@pytest.mark.parametrize(("text", "beginning"), ALLOWED)
def test_what_is_allowed_and_unusual_is_noted(text: str, beginning: str) -> None:
    (note,) = notes(text)
    assert note.startswith(beginning)


QUIET = [
    "learning_rate: 2e-4\nuse_peft: true\n",
    "learning_rate: 1e-6\n",
    "max_steps: -1\nnum_train_epochs: 3\n",
    "max_steps: 50\nwarmup_steps: 50\n",
    "max_steps: 50\nwarmup_steps: 0.5\n",
    "lr_scheduler_type: constant_with_warmup\nwarmup_steps: 10\n",
    "eval_steps: 10\nholdout: 0.1\n",
    "eval_steps: 10\neval_data: e.jsonl\n",
    "use_peft: true\nlora_r: 1\nlora_dropout: 0\nlora_target_modules: q_proj,v_proj\n",
    "optim: adamw_torch\nadam_beta2: 0.95\n",
    "max_steps: 1e3\n",
    "gradient_checkpointing: on\n",
    "seed: 4294967295\n",
    "output_dir: a-new-folder\n",
]


@pytest.mark.parametrize("text", QUIET)
def test_what_is_usual_is_accepted_without_a_word(text: str) -> None:
    assert notes(text) == ()


def test_a_config_built_by_hand_is_checked_as_well() -> None:
    def refused(**values: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            check_config(TrainConfig(**{"model": "m", "data": ("d",), **values}))
        return str(caught.value)

    assert refused(pairs_per_step=0).startswith("pairs_per_step is 0\n")
    assert refused(pairs_per_step=True).startswith("pairs_per_step is true\n")
    assert refused(max_grad_norm=True).startswith("max_grad_norm is true\n")
    assert refused(lora_r=4).startswith("lora_r and use_peft contradict")
    assert refused(max_steps=4, num_train_epochs=2.0).startswith("max_steps and num_train_epochs contradict")
    assert refused(objective_options={"gamma": 1}).startswith("objective orpo has no option gamma: it belongs to simpo\n")
    assert "no option gama\n" in refused(objective_options={"gama": 1}), "it belongs to none"
    assert refused(objective_options={"beta": -1.0}).startswith("beta is -1.0")
    assert refused(objective="sft", preset="trl").startswith("preset and objective contradict")
    assert refused(objective="grpo").startswith("objective is 'grpo'")
    assert refused(report_to="everything").startswith("report_to names 'everything'")

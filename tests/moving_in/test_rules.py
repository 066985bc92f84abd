"""One setting of another tool and what becomes of it: in our names, or a sentence in the right group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.errors import ConfigError
from orpo.moving_in.recognised import TOOLS
from orpo.moving_in.translation import MovedIn
from orpo.training.config_fields import known_names

TRL, FACTORY, AXOLOTL = "trl", "llama-factory", "axolotl"

BECOMES: list[tuple[str, str, dict[str, Any]]] = [
    (TRL, "max_length: null", {"max_length": 512, "overlong": "cut-completion"}),
    (TRL, "bf16: false", {"dtype": "float32"}),
    (TRL, "bf16: false\nfp16: true", {}),
    (TRL, "max_steps: -1\nnum_train_epochs: 2", {"num_train_epochs": 2}),
    (TRL, "max_steps: 40\nnum_train_epochs: 2", {"max_steps": 40}),
    (TRL, "max_steps: 40\nsave_steps: 0.25", {"save_steps": 10}),
    (TRL, "max_steps: 200\neval_strategy: steps\neval_steps: 0.1\ntest_split_size: 0.1", {"eval_steps": 20, "holdout": 0.1}),
    (TRL, "eval_strategy: steps\nlogging_steps: 7\ntest_split_size: 0.1", {"eval_steps": 7}),
    (TRL, "save_strategy: no", {"save_steps": 0}),
    (TRL, "optim: paged_adamw_32bit", {"optim": "adamw_torch_fused"}),
    (TRL, "optim: adafactor\nadam_beta1: 0.8", {"optim": "adafactor"}),
    (TRL, "lr_scheduler_type: constant\nwarmup_steps: 10", {"lr_scheduler_type": "constant"}),
    (TRL, "lora_r: 8", {}),
    (TRL, "use_peft: true", {"use_peft": True, "lora_dropout": 0.05}),
    (TRL, "loss_type: ipo\nbeta: 0.3", {"objective": "ipo", "tau": 0.3, "logps": "mean"}),
    (TRL, "trainer: cpo\nloss_type: simpo\ncpo_alpha: 0\nbeta: 2.0\nsimpo_gamma: 1.0", {"objective": "simpo", "beta": 2.0, "gamma": 1.0}),
    (TRL, "desirable_weight: 1.3", {"objective": "kto", "desirable_weight": 1.3}),
    (TRL, "trainer: sft\nbeta: 0.1", {"objective": "sft", "learning_rate": 2e-5}),
    (TRL, "completion_only_loss: false", {"objective": "sft", "nll_over": "prompt+completion"}),
    (TRL, "dataset_name: an-org/pairs\ndataset_config: en", {"data": "an-org/pairs:en/train"}),
    (TRL, "dataset_name: pairs.jsonl\ndataset_train_split: train", {"data": "pairs.jsonl"}),
    (TRL, "datasets:\n- path: json\n  data_files: [a.jsonl, b.jsonl]", {"data": ["a.jsonl", "b.jsonl"]}),
    (TRL, "datasets: an-org/pairs", {"data": "an-org/pairs"}),
    (FACTORY, "stage: kto\nkto_chosen_weight: 2.0", {"objective": "kto", "desirable_weight": 2.0}),
    (FACTORY, "stage: rm", {"objective": "reward"}),
    (FACTORY, "stage: dpo", {"objective": "dpo"}),
    (FACTORY, "stage: dpo\npref_loss: simpo\nsimpo_gamma: 1.5", {"objective": "simpo", "beta": 0.1, "gamma": 1.5}),
    (FACTORY, "stage: dpo\npref_loss: ipo\npref_beta: 0.2", {"objective": "ipo", "tau": 0.2}),
    (FACTORY, "stage: sft\ntrain_on_prompt: true", {"nll_over": "prompt+completion"}),
    (FACTORY, "stage: dpo", {"use_peft": True, "lora_r": 8, "lora_alpha": 16, "learning_rate": 5e-5, "num_train_epochs": 3.0}),
    (FACTORY, "stage: dpo\nfinetuning_type: full\nlora_rank: 8", {"use_peft": False}),
    (FACTORY, "lora_rank: 64", {"lora_r": 64, "lora_alpha": 128}),
    (FACTORY, "template: chatml", {"template": "chatml"}),
    (AXOLOTL, "rl: ipo\nrl_beta: 0.2", {"objective": "ipo", "tau": 0.2}),
    (AXOLOTL, "rl: dpo\ntrl: {beta: 0.3}", {"objective": "dpo", "beta": 0.3}),
    (AXOLOTL, "rl: orpo\norpo_alpha: 0.3\nrl_beta: 0.2", {"beta": 0.2}),
    (AXOLOTL, "rl: simpo\nrl_beta: 2.0\nsimpo_gamma: 0.9", {"objective": "simpo", "beta": 2.0, "gamma": 0.9}),
    (AXOLOTL, "rl: kto\nkto_undesirable_weight: 0.5", {"objective": "kto", "undesirable_weight": 0.5}),
    (AXOLOTL, "reward_model: true", {"objective": "reward"}),
    (AXOLOTL, "base_model: m", {"objective": "sft", "warmup_steps": 0.03, "max_length": 512, "lr_scheduler_type": "cosine"}),
    (AXOLOTL, "micro_batch_size: 2", {"pairs_per_step": 2}),
    (AXOLOTL, "excess_length_strategy: truncate", {"overlong": "cut-completion"}),
    (AXOLOTL, "chat_template: tokenizer_default", {"template": "tokenizer"}),
    (AXOLOTL, "chat_template: jinja\nchat_template_jinja: mine.jinja", {"template": "mine.jinja"}),
    (AXOLOTL, "adapter: lora\nlora_target_modules: [q_proj]", {"lora_target_modules": ["q_proj"]}),
    (AXOLOTL, "adapter: lora\nlora_target_linear: true\nlora_target_modules: [q_proj]", {"lora_target_modules": "all-linear"}),
    (AXOLOTL, "adapter:\nlora_r: 8", {"use_peft": False}),
    (AXOLOTL, "eval_steps: 50\nval_set_size: 0.1", {"eval_steps": 50, "holdout": 0.1}),
    (AXOLOTL, "save_steps: 50", {"save_steps": 50}),
    (AXOLOTL, "datasets:\n- path: an-org/pairs\n  revision: abc\n  split: test", {"data": "an-org/pairs@abc:test"}),
    (AXOLOTL, "bf16: full", {"dtype": "bfloat16"}),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "text", "expected"), BECOMES, ids=[f"{row[0]}-{row[1]!r}" for row in BECOMES])
def test_a_setting_becomes_ours(tool: str, text: str, expected: dict[str, Any], moved: Callable[..., MovedIn]) -> None:
    settings = {name: setting.value for name, setting in moved(tool, text + "\n").settings.items()}
    assert {name: settings.get(name) for name in expected} == expected


GONE = [
    (TRL, "max_steps: 40\nnum_train_epochs: 2", "num_train_epochs"),
    (TRL, "lora_r: 8", "lora_r"),
    (TRL, "optim: adafactor\nadam_beta1: 0.8", "adam_beta1"),
    (TRL, "lr_scheduler_type: constant\nwarmup_steps: 10", "warmup_steps"),
    (TRL, "eval_strategy: steps\neval_steps: 5", "eval_steps"),
    (FACTORY, "finetuning_type: full\nlora_rank: 8", "lora_rank"),
]


@pytest.mark.parametrize(("tool", "text", "name"), GONE)
def test_what_nothing_would_read_is_left_out_and_said(tool: str, text: str, name: str, moved: Callable[..., MovedIn]) -> None:
    found = moved(tool, text + "\n")
    assert name in {row.setting.name for row in found.of("unneeded")}
    assert name not in {setting.written for setting in found.settings.values()}


UNSUPPORTED = [
    (TRL, "optim: lion_32bit", "lion_32bit is not offered"),
    (TRL, "lr_scheduler_type: cosine_with_min_lr", "cosine_with_min_lr is not offered"),
    (TRL, "fp16: true", "no float16"),
    (TRL, "deepspeed: ds.json", "sharding library"),
    (TRL, "push_to_hub: true", "never pushes"),
    (TRL, "load_best_model_at_end: true", "the last model is kept"),
    (TRL, "adam_epsilon: 1.0e-6", "no further settings"),
    (TRL, "label_smoothing: 0.1", "robust loss"),
    (TRL, "model_init_kwargs: {revision: v2}", "revision: a model is loaded from"),
    (TRL, "truncation_mode: keep_end", "cut at its end alone"),
    (TRL, "trust_remote_code: true", "never run"),
    (TRL, "dataset_name: an-org/pairs\ndataset_train_split: 'train[:10%]'", "part 'train[:10%]'"),
    (TRL, "datasets: [{path: an-org/pairs, fraction: 0.5}]", "all rows of every dataset"),
    (TRL, "report_to: neptune", "not installed here"),
    (TRL, "layers_of_mine: 3", "no setting of TRL that is known here"),
    (FACTORY, "adapter_name_or_path: saves/sft", "merge the adapter"),
    (FACTORY, "quantization_bit: 8", "4: other sizes are not offered"),
    (FACTORY, "use_galore: true", "adamw_torch_fused"),
    (FACTORY, "dataset: nowhere", "there is no dataset_info.json in data"),
    (FACTORY, "pref_ftx: 0.5", "the loss is the published one"),
    (AXOLOTL, "plugins: [my.Plugin]", "my.Plugin: no code but orpo's own"),
    (AXOLOTL, "special_tokens: {eos_token: <end>}", "eos_token: the tokenizer's own"),
    (AXOLOTL, "chat_template: jinja\nchat_template_jinja: '{{ messages }}'", "write it to a file"),
    (AXOLOTL, "peft_use_dora: true", "plain LoRA"),
    (AXOLOTL, "load_in_8bit: true", "8-bit weights are planned"),
    (AXOLOTL, "datasets: [{path: org/d, data_files: [a.json]}]", "single files of the Hub dataset org/d"),
    (AXOLOTL, "datasets: [{path: a.jsonl, type: {field_prompt: q, prompt_format: '[INST] {prompt}'}}]", "prompt_format of a.jsonl"),
    (AXOLOTL, "datasets: [{path: a.jsonl, type: {field_prompt: q}}, {path: b.jsonl}]", "name their columns differently"),
]


@pytest.mark.parametrize(("tool", "text", "said"), UNSUPPORTED, ids=[row[1] for row in UNSUPPORTED])
def test_what_has_no_counterpart_is_said_with_a_reason(tool: str, text: str, said: str, moved: Callable[..., MovedIn]) -> None:
    rows = moved(tool, text + "\n").of("unsupported")
    assert len(rows) == 1
    assert said in rows[0].became.why


REFUSED = [
    (TRL, "per_device_train_batch_size: 0", "theirs.yaml:1: per_device_train_batch_size is 0"),
    (TRL, "gradient_accumulation_steps: 1.5", "theirs.yaml:1: gradient_accumulation_steps is 1.5"),
    (TRL, "save_steps: often", "theirs.yaml:1: save_steps is 'often'"),
    (TRL, "eval_strategy: sometimes", "no, steps or epoch"),
    (TRL, "loss_type: hinge", "theirs.yaml:1: loss_type is 'hinge'"),
    (TRL, "trainer: grpo", "one of orpo, dpo, kto, sft, cpo"),
    (TRL, "trainer: cpo\nloss_type: simpo", "cpo_alpha 0"),
    (FACTORY, "stage: ppo", "stage dpo with pref_loss"),
    (FACTORY, "stage: dpo\npref_loss: hinge", "stage dpo with pref_loss"),
    (FACTORY, "finetuning_type: oft", "lora, or full"),
    (AXOLOTL, "rl: grpo", "rl: orpo, dpo"),
    (AXOLOTL, "adapter: llama-adapter", "lora, qlora, or nothing"),
    (AXOLOTL, "excess_length_strategy: keep", "drop, truncate or raise"),
    (AXOLOTL, "datasets: [{split: train}]", "datasets with a path each"),
]


@pytest.mark.parametrize(("tool", "text", "said"), REFUSED, ids=[row[1] for row in REFUSED])
def test_a_value_that_would_be_guessed_is_refused_with_its_line(tool: str, text: str, said: str, moved: Callable[..., MovedIn]) -> None:
    with pytest.raises(ConfigError) as caught:
        moved(tool, text + "\n")
    assert "theirs.yaml:" in str(caught.value)
    assert said in str(caught.value)


def test_an_epoch_is_counted_in_steps_where_its_length_is_known(moved: Callable[..., MovedIn]) -> None:
    text = "save_strategy: epoch\neval_strategy: epoch\nlogging_strategy: epoch\ntest_split_size: 0.1\n"
    known = {name: setting.value for name, setting in moved(TRL, text, known={"steps_per_epoch": 12}).settings.items()}
    assert (known["save_steps"], known["eval_steps"], known["logging_steps"]) == (12, 12, 12)
    unknown = moved(TRL, text)
    assert not {"save_steps", "eval_steps", "logging_steps"} & unknown.settings.keys()
    assert {"save_strategy", "eval_strategy", "logging_steps"} <= {row.setting.name for row in unknown.of("changed")}


def test_processes_multiply_what_a_step_learns_from(moved: Callable[..., MovedIn]) -> None:
    found = moved(TRL, "per_device_train_batch_size: 2\ngradient_accumulation_steps: 3\n", processes=4).settings["pairs_per_step"]
    assert (found.value, found.written) == (24, "per_device_train_batch_size x gradient_accumulation_steps x 4")


def test_two_settings_that_ask_for_different_things_are_refused(moved: Callable[..., MovedIn]) -> None:
    with pytest.raises(ConfigError, match=r"rl_beta asks for beta 0\.2, dpo_beta for 0\.3"):
        moved(AXOLOTL, "rl: dpo\nrl_beta: 0.2\ndpo_beta: 0.3\n")


def test_a_tracker_that_is_installed_is_carried_over(moved: Callable[..., MovedIn], monkeypatch: pytest.MonkeyPatch) -> None:
    import orpo.moving_in.transformers_rules as rules

    monkeypatch.setattr(rules.importlib.util, "find_spec", lambda name: None if name == "mlflow" else object())
    found = moved(TRL, "report_to: [wandb, mlflow]\n")
    assert found.settings["report_to"].value == ["wandb"]
    assert found.of("unsupported")[0].became.why.startswith("mlflow: ")
    assert moved(AXOLOTL, "wandb_project: mine\n").settings["report_to"].value == ["wandb"]


def test_a_dataset_that_dataset_info_does_not_hold_is_said(moved: Callable[..., MovedIn], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(
        '{"a": {"file_name": "a.json", "num_samples": 5, "formatting": "sharegpt", "tags": {"role_tag": "speaker"}},'
        ' "b": {"ms_hub_url": "x/y"}}'
    )
    found = moved(FACTORY, "dataset: a, b, c\n", known={"file_folder": str(tmp_path)})
    assert found.settings["data"].value == [str(tmp_path / "data" / "a.json"), "b", "c"]
    (row,) = found.of("unsupported")
    for said in ("role_tag: speaker", "num_samples", "b lies neither", "c is not in"):
        assert said in row.became.why


def test_the_rules_of_every_tool_lead_to_names_of_ours_only() -> None:
    """What a rule gives for a value that is there, as far as it takes one of these."""
    from orpo.training.config_values import Unfit

    for tool in TOOLS:
        for name, rule in tool.rules.items():
            for value in (1, 0.5, True, "orpo", "steps", "lora", ["a.jsonl"]):
                try:
                    became = rule(value, {**tool.defaults({}), name: value})
                except (Unfit, AttributeError, TypeError):
                    continue
                assert set(became.ours) <= set(known_names()), name

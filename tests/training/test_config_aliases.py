"""Configurations of other tools: what is understood, what is left out with a note, what is refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orpo.errors import ConfigError
from orpo.training.config import ResolvedConfig, resolve_config
from orpo.training.config_aliases import ACCUMULATION, PER_DEVICE, RENAMED
from orpo.training.config_elsewhere import IGNORED, LATER, REFUSED
from orpo.training.config_fields import known_names
from orpo.training.config_foreign import VALUES

BASE = "model: m\ndata: d.jsonl\n"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that places read `orpo.yaml:3`."""
    monkeypatch.chdir(tmp_path)


def resolved(text: str, base: str = BASE) -> ResolvedConfig:
    """What `base` and `text` come to."""
    Path("orpo.yaml").write_text(base + text)
    return resolve_config(file="orpo.yaml")


def error(text: str) -> str:
    """The message of the ConfigError for BASE and `text`."""
    with pytest.raises(ConfigError) as caught:
        resolved(text)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_tables_hold_no_name_twice_and_no_name_of_ours() -> None:
    tables = [known_names(), RENAMED, (*PER_DEVICE, ACCUMULATION), IGNORED, REFUSED, LATER]
    names = [name for table in tables for name in table]
    assert sorted(names) == sorted(set(names))
    assert set(RENAMED.values()) <= set(known_names())
    assert set(VALUES) <= set(RENAMED)


UNDERSTOOD = [
    ("orpo_alpha: 0.2", "beta", 0.2),
    ("pref_beta: 0.2", "beta", 0.2),
    ("alpha: 0.2", "beta", 0.2),
    ("lambda: 0.2", "beta", 0.2),
    ("sequence_len: 512", "max_length", 512),
    ("cutoff_len: 512", "max_length", 512),
    ("cutoff: 512", "max_length", 512),
    ("max_seq_length: 512", "max_length", 512),
    ("eval_dataset: e", "eval_data", ("e",)),
    ("val_set_size: 0.05", "holdout", 0.05),
    ("val_size: 100", "holdout", 100),
    ("epochs: 3", "num_train_epochs", 3.0),
    ("num_epochs: 3", "num_train_epochs", 3.0),
    ("lr: 1e-6", "learning_rate", 1e-6),
    ("lr_scheduler: cosine", "lr_scheduler_type", "cosine"),
    ("optimizer: adamw_torch", "optim", "adamw_torch"),
    ("warmup_ratio: 0.1", "warmup_steps", 0.1),
    ("warmup_ratio: 0", "warmup_steps", 0),
    ("adapter: lora", "use_peft", True),
    ("finetuning_type: lora", "use_peft", True),
    ("finetuning_type: full", "use_peft", False),
    ("peft: true", "use_peft", True),
    ("use_lora: true", "use_peft", True),
    ("bf16: true", "dtype", "bfloat16"),
    ("bf16: false", "dtype", "float32"),
    ("bf16: auto", "dtype", "auto"),
    ("fp32: true", "dtype", "float32"),
    ("torch_dtype: bfloat16", "dtype", "bfloat16"),
    ("rl: orpo", "objective", "orpo"),
    ("rl: dpo", "objective", "dpo"),
    ("pref_loss: orpo", "objective", "orpo"),
    ("stage: sft", "objective", "sft"),
    ("chat_template: tokenizer_default", "template", "tokenizer"),
    ("chat_template: chatml", "template", "chatml"),
]


@pytest.mark.parametrize(("text", "name", "value"), UNDERSTOOD, ids=[row[0] for row in UNDERSTOOD])
def test_a_name_of_another_tool_is_understood_with_a_note_and_its_origin(text: str, name: str, value: Any) -> None:
    found = resolved(text + "\n")
    config, written = found.config, text.partition(":")[0]
    assert (config.objective_options[name] if name == "beta" else getattr(config, name)) == value
    assert found.origins[name] == f"orpo.yaml:3 (as {written})"
    assert [note for note in found.notes if note.startswith(f"orpo.yaml:3: {written} is read as {name}")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("lora_rank: 8", ("lora_r", 8)), ("lora_target: all", ("lora_target_modules", "all-linear"))],
    ids=lambda row: str(row),
)
def test_names_of_lora_are_understood_beside_an_adapter(text: str, expected: tuple[str, Any]) -> None:
    assert getattr(resolved(f"adapter: lora\n{text}\n").config, expected[0]) == expected[1]


@pytest.mark.parametrize("name", ["base_model", "model_name_or_path"])
def test_the_model_has_other_names(name: str) -> None:
    assert resolved(f"{name}: other\n", base="data: d\n").config.model == "other"


@pytest.mark.parametrize("name", ["dataset", "datasets", "dataset_name"])
@pytest.mark.parametrize(("written", "value"), [("d", ("d",)), ("[d, e]", ("d", "e"))])
def test_the_data_have_other_names(name: str, written: str, value: tuple[str, ...]) -> None:
    assert resolved(f"{name}: {written}\n", base="model: m\n").config.data == value


@pytest.mark.parametrize(("written", "held"), [("true", "on"), ("false", "off"), ("on", "on"), ("'off'", "off"), ("auto", "auto")])
def test_gradient_checkpointing_may_be_a_truth_value(written: str, held: str) -> None:
    assert resolved(f"gradient_checkpointing: {written}\n").config.gradient_checkpointing == held


def test_batch_size_times_accumulation_is_pairs_per_step_and_memory_is_another_matter() -> None:
    found = resolved("per_device_train_batch_size: 2\ngradient_accumulation_steps: 4\n")
    assert found.config.pairs_per_step == 8
    assert found.origins["pairs_per_step"] == "orpo.yaml:3 (as per_device_train_batch_size x gradient_accumulation_steps)"
    (note,) = found.notes
    assert "read as pairs_per_step 8, over all processes" in note
    assert "tokens_per_micro_batch" in note


def test_a_batch_size_alone_is_pairs_per_step() -> None:
    assert resolved("micro_batch_size: 3\n").config.pairs_per_step == 3


def test_a_configuration_for_axolotl_resolves() -> None:
    text = (
        "base_model: org/model\nmodel_type: MistralForCausalLM\ntokenizer_type: LlamaTokenizer\nload_in_8bit: false\nload_in_4bit: false\n"
        "strict: false\nrl: orpo\norpo_alpha: 0.2\nremove_unused_columns: false\nchat_template: chatml\ndatasets: org/data\n"
        "dataset_prepared_path: last_run_prepared\nval_set_size: 0.1\nadapter: lora\nlora_model_dir:\nsequence_len: 4096\n"
        "sample_packing: false\npad_to_sequence_len: true\nlora_r: 32\nlora_target_linear: true\nwandb_project: mine\n"
        "gradient_accumulation_steps: 3\nmicro_batch_size: 2\nnum_epochs: 1\nlr_scheduler: cosine\nlearning_rate: 0.0002\n"
        "train_on_inputs: false\nbf16: auto\nfp16:\ntf32: false\ngradient_checkpointing: false\nflash_attention: true\nwarmup_steps: 10\n"
        "deepspeed:\nfsdp:\nweight_decay: 0.0\n"
    )
    config = resolved(text, base="").config
    assert (config.model, config.data, config.objective_options["beta"]) == ("org/model", ("org/data",), 0.2)
    assert (config.use_peft, config.lora_r, config.pairs_per_step, config.max_length, config.holdout) == (True, 32, 6, 4096, 0.1)


def test_a_configuration_for_llama_factory_resolves() -> None:
    text = (
        "model_name_or_path: org/model\ntrust_remote_code: false\nstage: dpo\ndo_train: true\nfinetuning_type: lora\nlora_rank: 8\n"
        "lora_target: all\npref_beta: 0.1\npref_loss: orpo\ndataset: pairs.jsonl\ncutoff_len: 2048\noverwrite_cache: true\n"
        "preprocessing_num_workers: 16\noutput_dir: saves/orpo\nlogging_steps: 10\nsave_steps: 500\nplot_loss: true\n"
        "overwrite_output_dir: true\nreport_to: none\nper_device_train_batch_size: 1\ngradient_accumulation_steps: 8\n"
        "learning_rate: 5.0e-6\nnum_train_epochs: 3.0\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\nddp_timeout: 180000000\n"
        "resume_from_checkpoint: null\nval_size: 0.1\nper_device_eval_batch_size: 1\neval_strategy: steps\neval_steps: 500\n"
    )
    config = resolved(text, base="").config
    assert (config.objective, config.dtype, config.warmup_steps, config.lora_target_modules) == ("orpo", "bfloat16", 0.1, "all-linear")
    assert (config.pairs_per_step, config.lora_r, config.learning_rate, config.eval_steps) == (8, 8, 5e-6, 500)


@pytest.mark.parametrize("name", IGNORED)
def test_what_changes_no_result_is_left_out_with_the_reason(name: str) -> None:
    found = resolved(f"{name}: 3\n")
    assert found.notes == (f"orpo.yaml:3: {name} is not used: {IGNORED[name]}",)
    assert found.config == resolved("").config


@pytest.mark.parametrize("name", [*REFUSED, *LATER])
def test_what_would_change_the_result_is_refused_with_the_reason(name: str) -> None:
    message = error(f"{name}: true\n")
    assert message.startswith(f"orpo.yaml:3: {name} ")
    assert ({**REFUSED, **LATER})[name] in message
    assert message.endswith(f"remove {name}")


@pytest.mark.parametrize("name", [*REFUSED, "load_in_8bit"])
def test_what_is_switched_off_anyway_is_accepted_with_a_note(name: str) -> None:
    found = resolved(f"{name}: false\n")
    assert found.notes == (f"orpo.yaml:3: {name} false asks for what happens anyway",)


@pytest.mark.parametrize(
    "text",
    [
        "adapter: qlora\n",
        "adapter: qlora\nload_in_4bit: true\n",
        "finetuning_type: lora\nquantization_bit: 4\nquantization_type: nf4\ndouble_quantization: true\n",
        "use_peft: true\nload_in_4bit: true\nbnb_4bit_quant_type: nf4\nuse_bnb_nested_quant: true\nbnb_4bit_compute_dtype: bfloat16\n",
    ],
)
def test_qlora_is_understood_in_the_words_of_other_tools(text: str) -> None:
    config = resolved(text).config
    assert (config.use_peft, config.load_in_4bit) == (True, True)


def test_pushing_is_refused_in_words() -> None:
    assert "training never pushes" in error("push_to_hub: true\n")


def test_a_secret_is_refused_and_not_repeated() -> None:
    message = error("hub_token: hf_abcdefghijklmnopqrstuvwxyz\n")
    assert "secrets do not belong in a configuration" in message
    assert "hf_abc" not in message


REFUSALS = [
    ("fp16: true", "orpo.yaml:3: fp16 is true", "dtype: auto, bfloat16 or float32"),
    ("torch_dtype: float16", "orpo.yaml:3: torch_dtype is 'float16'", "bfloat16 has the range of float32"),
    ("bf16: maybe", "orpo.yaml:3: bf16 is 'maybe'", "true, false or auto"),
    ("fp32: 32", "orpo.yaml:3: fp32 is 32", "true or false"),
    ("adapter: dora", "orpo.yaml:3: adapter is 'dora'", "lora, qlora, or full"),
    ("quantization_bit: 8", "orpo.yaml:3: quantization_bit is 8", "load_in_4bit: true, with use_peft: true"),
    ("bnb_4bit_quant_type: fp4", "orpo.yaml:3: bnb_4bit_quant_type is 'fp4'", "the type that load_in_4bit takes"),
    ("use_bnb_nested_quant: false", "orpo.yaml:3: use_bnb_nested_quant is false", "are always quantised as well"),
    ("bnb_4bit_compute_dtype: float16", "orpo.yaml:3: bnb_4bit_compute_dtype is 'float16'", "bfloat16 has the range of float32"),
    ("finetuning_type: freeze", "orpo.yaml:3: finetuning_type is 'freeze'", "lora, or full"),
    ("warmup_ratio: 10", "orpo.yaml:3: warmup_ratio is 10", "write warmup_steps: 0.1"),
    ("warmup_ratio: '0.1'", "orpo.yaml:3: warmup_ratio is '0.1'", "a fraction of the steps"),
    ("lora_target_linear: q", "orpo.yaml:3: lora_target_linear is 'q'", "lora_target_modules: all-linear"),
    ("stage: dpo", "orpo.yaml:3: stage is 'dpo'", "write objective: orpo if ORPO is meant"),
    ("stage: ppo", "orpo.yaml:3: stage is 'ppo'", "objective: orpo, or objective: sft"),
    ("rl: grpo", "orpo.yaml:3: objective (rl) is 'grpo'", "one of orpo, sft, odds"),
    ("gradient_accumulation_steps: 4", "orpo.yaml:3: gradient_accumulation_steps is given without a batch size", "set pairs_per_step"),
    ("micro_batch_size: 0", "orpo.yaml:3: micro_batch_size is 0", "at least 1"),
    ("micro_batch_size: 2\ngradient_accumulation_steps: 0", "orpo.yaml:4: gradient_accumulation_steps is 0", "at least 1"),
    ("micro_batch_size: auto", "orpo.yaml:3: micro_batch_size is 'auto'", "a whole number"),
    ("micro_batch_size: 2\nbatch_size: 4", "orpo.yaml:4: batch size is 2 at orpo.yaml:3", "remove one of the two"),
    ("datasets:\n  - path: org/name", "orpo.yaml:4: datasets holds a section", "list paths alone"),
]


@pytest.mark.parametrize(("text", "beginning", "beside"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_a_foreign_value_without_counterpart_is_refused(text: str, beginning: str, beside: str) -> None:
    message = error(text + "\n")
    assert message.startswith(beginning)
    assert beside in message
    assert "  to fix: " in message


TWICE = [
    ("beta: 0.1\npref_beta: 0.2\n", "beta is 0.1 at orpo.yaml:3 and 0.2 at orpo.yaml:4 (as pref_beta)"),
    ("orpo_alpha: 0.1\npref_beta: 0.2\n", "beta is 0.1 at orpo.yaml:3 (as orpo_alpha) and 0.2 at orpo.yaml:4 (as pref_beta)"),
    ("warmup_steps: 10\nwarmup_ratio: 0.1\n", "warmup_steps is 10 at orpo.yaml:3 and 0.1 at orpo.yaml:4 (as warmup_ratio)"),
    ("bf16: true\nfp32: true\n", "dtype is 'bfloat16' at orpo.yaml:3 (as bf16) and 'float32' at orpo.yaml:4 (as fp32)"),
    ("use_peft: false\nadapter: lora\n", "use_peft is false at orpo.yaml:3 and true at orpo.yaml:4 (as adapter)"),
    ("micro_batch_size: 2\npairs_per_step: 8\n", "pairs_per_step is 2 at orpo.yaml:3 (as micro_batch_size) and 8 at orpo.yaml:4"),
]


@pytest.mark.parametrize(("text", "said"), TWICE)
def test_two_names_of_one_setting_with_different_values_are_refused_naming_both_places(text: str, said: str) -> None:
    message = error(text)
    assert said in message
    assert "the names mean the same" in message


def test_two_names_of_one_setting_with_one_value_are_accepted() -> None:
    assert resolved("beta: 0.2\npref_beta: 0.2\norpo_alpha: 0.2\n").config.objective_options["beta"] == 0.2


def test_a_foreign_name_may_be_a_flag_of_the_python_call() -> None:
    found = resolve_config(flags={"model": "m", "data": "d", "orpo_alpha": 0.3})
    assert (found.config.objective_options["beta"], found.origins["beta"]) == (0.3, "flag --orpo-alpha (as orpo_alpha)")

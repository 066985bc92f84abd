"""Every value that cannot be: its line, what was expected and what to do; and the types in which values are held."""

from __future__ import annotations

from pathlib import Path

import pytest

from orpo.errors import ConfigError
from orpo.training.config import resolve_config

BASE = "model: m\ndata: d.jsonl\n"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that places read `orpo.yaml:3`."""
    monkeypatch.chdir(tmp_path)


BAD_VALUES = [
    # name, value as written in YAML, how it is shown, expected, to fix
    ("beta", "-0.1", "-0.1", "at least 0", "correct it, or remove it"),
    ("beta", ".nan", "nan", "a finite number at least 0", ""),
    ("beta", ".inf", "inf", "a finite number", ""),
    ("beta", "yes", "true", "a number", "YAML reads yes, no, on and off as true and false"),
    ("beta", "'0.1'", "'0.1'", "a number", "remove the quotes"),
    ("beta", "[0.1, 0.2]", "[0.1, 0.2]", "a number", ""),
    ("odds_temperature", "0", "0", "above 0", ""),
    ("nll_over", "prompt", "'prompt'", "one of completion, prompt+completion", "correct it"),
    ("nll_average", "tokens", "'tokens'", "one of sequence, token", "did you mean token?"),
    ("learning_rate", "0", "0", "above 0 and at most 1", "the default is 8e-06"),
    ("learning_rate", "-1e-5", "-1e-05", "above 0", "the default is 8e-06"),
    ("learning_rate", ".nan", "nan", "a finite number above 0", ""),
    ("learning_rate", "2", "2", "at most 1", ""),
    ("learning_rate", "fast", "'fast'", "a number", ""),
    ("learning_rate", '"1e-5"', "'1e-5'", "a number", "remove the quotes"),
    ("max_length", "1", "1", "at least 2", "the default is 2048"),
    ("max_length", "10.5", "10.5", "a whole number", ""),
    ("max_length", "2026-01-02", "2026-01-02", "a whole number", ""),
    ("pairs_per_step", "0", "0", "at least 1", "the default is 8"),
    ("pairs_per_step", "-4", "-4", "at least 1", ""),
    ("pairs_per_step", "yes", "true", "a whole number", "write a number; YAML reads yes"),
    ("pairs_per_step", "eight", "'eight'", "a whole number", ""),
    ("num_train_epochs", "0", "0", "above 0", "the default is 1.0"),
    ("num_train_epochs", "-1", "-1", "above 0", ""),
    ("num_train_epochs", ".inf", "inf", "a finite number above 0", ""),
    ("max_steps", "0", "0", "at least 1, or -1 to go by num_train_epochs", "set the steps"),
    ("max_steps", "-2", "-2", "at least 1, or -1", ""),
    ("seed", "-1", "-1", "at least 0", ""),
    ("seed", "4294967296", "4294967296", "at most 4294967295", ""),
    ("warmup_steps", "-1", "-1", "at least 0", ""),
    ("warmup_steps", "1.5", "1.5", "a whole number, or a fraction below 1", ""),
    ("warmup_steps", "10%", "'10%'", "a whole number, or a fraction below 1", ""),
    ("holdout", "-0.1", "-0.1", "at least 0", ""),
    ("holdout", "all", "'all'", "a whole number, or a fraction below 1", ""),
    ("weight_decay", "-0.1", "-0.1", "at least 0", ""),
    ("adam_beta1", "1", "1", "at least 0 and below 1", "the default is 0.9"),
    ("max_grad_norm", "-1", "-1", "at least 0", ""),
    ("tokens_per_micro_batch", "1", "1", "at least 2", "the default is 'auto'"),
    ("tokens_per_micro_batch", "many", "'many'", "a whole number, or auto", ""),
    ("tokens_per_micro_batch", "true", "true", "a whole number, or auto", "write a number"),
    ("logging_steps", "0", "0", "at least 1", ""),
    ("eval_steps", "-5", "-5", "at least 0", ""),
    ("save_steps", "-5", "-5", "at least 0", ""),
    ("save_steps", "epoch", "'epoch'", "a whole number", ""),
    ("save_total_limit", "0", "0", "at least 1", ""),
    ("max_bad_rows", "-1", "-1", "at least 0", ""),
    ("num_samples", "-1", "-1", "at least 0", ""),
    ("max_new_tokens", "0", "0", "at least 1", "the default is 64"),
    ("dtype", "float16", "'float16'", "one of auto, float32, bfloat16", "did you mean"),
    ("gradient_checkpointing", "maybe", "'maybe'", "one of auto, on, off", ""),
    ("overlong", "cut", "'cut'", "one of drop, cut-completion, error", ""),
    ("optim", "adamw_torch_fuse", "'adamw_torch_fuse'", "adamw_torch_fused", "did you mean adamw_torch_fused?"),
    ("optim", "lion_8bit", "'lion_8bit'", "one of adamw_torch_fused, adamw_torch", ""),
    ("lr_scheduler_type", "cosin", "'cosin'", "cosine", "did you mean cosine?"),
    ("lr_scheduler_type", "reduce_lr_on_plateau", "'reduce_lr_on_plateau'", "one of linear, cosine", ""),
    ("objective", "grpo", "'grpo'", "one of orpo, sft, odds", "did you mean orpo?"),
    ("preset", "axolotl", "'axolotl'", "one of paper, official, trl, llama-factory", ""),
    ("use_peft", "'true'", "'true'", "true or false", "remove the quotes"),
    ("use_peft", "1", "1", "true or false", ""),
    ("fresh", "maybe", "'maybe'", "true or false", ""),
    ("template", "7", "7", "text", "put it in quotes"),
    ("columns", "[a, b]", "['a', 'b']", "text", "give one text"),
    ("output_dir", "''", "''", "text that is not empty", "remove the line"),
    ("eval_data", "[a, 1]", "['a', 1]", "text", "put it in quotes"),
    ("report_to", "[]", "[]", "one name or more", "remove the line"),
]


@pytest.mark.parametrize(("name", "written", "said", "expected", "fix"), BAD_VALUES, ids=[f"{row[0]}: {row[1]}" for row in BAD_VALUES])
def test_a_value_that_cannot_be_is_refused_with_line_expectation_and_remedy(
    name: str, written: str, said: str, expected: str, fix: str
) -> None:
    Path("orpo.yaml").write_text(f"{BASE}{name}: {written}\n")
    with pytest.raises(ConfigError) as caught:
        resolve_config(file="orpo.yaml")
    assert caught.value.exit_code == 2
    first, *rest = str(caught.value).split("\n")
    assert first == f"orpo.yaml:3: {name} is {said}"
    assert any(line.startswith("  expected: ") and expected in line for line in rest)
    assert any(line.startswith("  to fix: ") and fix in line for line in rest)


def test_values_are_held_in_their_own_types() -> None:
    text = "max_steps: 1e3\nuse_peft: true\nlora_target_modules: q_proj, v_proj\ngradient_checkpointing: off\nwarmup_steps: 10.0\nbeta: 1\n"
    Path("orpo.yaml").write_text(BASE + text)
    config = resolve_config(file="orpo.yaml", flags={"tokens_per_micro_batch": "4096"}).config
    assert (config.max_steps, config.lora_target_modules, config.gradient_checkpointing) == (1000, ("q_proj", "v_proj"), "off")
    assert [repr(value) for value in (config.warmup_steps, config.tokens_per_micro_batch, config.objective_options["beta"])] == [
        "10",
        "4096",
        "1.0",
    ]

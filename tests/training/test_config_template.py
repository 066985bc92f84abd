"""The file of `orpo init`, and the flags made from the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orpo.errors import ConfigError
from orpo.objectives.catalogue import OBJECTIVES, objective_options
from orpo.training.config import resolve_config
from orpo.training.config_fields import DEFAULTS, FIELDS, known_names, objectives_with, option_names
from orpo.training.config_flags import Flag, flag_table
from orpo.training.config_template import init_yaml

FLAGS: dict[str, Flag] = {flag.name: flag for flag in flag_table()}


def test_the_template_resolves_to_the_defaults_with_model_and_data_set(tmp_path: Path) -> None:
    file = tmp_path / "orpo.yaml"
    file.write_text(init_yaml(model="1e5", data="a: b.jsonl"))
    resolved = resolve_config(file=file)
    assert resolved.config == resolve_config(flags={"model": "1e5", "data": "a: b.jsonl"}).config
    assert resolved.notes == ()


def test_every_name_in_the_template_is_real_also_in_its_comments() -> None:
    names = re.findall(r"^(?:# )?([a-z_0-9]+):", init_yaml(), re.MULTILINE)
    assert len(names) == 20
    assert set(names) <= set(known_names())


def test_the_values_in_the_templates_comments_resolve(tmp_path: Path) -> None:
    text = re.sub(r"^# ([a-z_0-9]+:)", r"\1", init_yaml(), flags=re.MULTILINE).replace("use_peft: false", "use_peft: true")
    (tmp_path / "orpo.yaml").write_text(text)
    config = resolve_config(file=tmp_path / "orpo.yaml").config
    assert (config.holdout, config.lora_r, config.eval_steps, config.output_dir) == (0.05, 16, 100, "runs/my-run")


def test_the_template_is_one_screen() -> None:
    assert 20 <= len(init_yaml().splitlines()) <= 32
    assert max(len(line) for line in init_yaml().splitlines()) <= 120


def test_there_is_one_flag_per_setting_and_per_option() -> None:
    options = {option.name for name in OBJECTIVES for option in objective_options(name)}
    assert {flag.name for flag in FLAGS.values() if not flag.is_hidden} == set(FIELDS) | options
    assert all(flag.flag == f"--{flag.name.replace('_', '-')}" for flag in FLAGS.values())


def test_the_flags_of_the_contract_are_there() -> None:
    contract = (
        "model data eval-data objective preset beta max-steps num-train-epochs learning-rate lr-scheduler-type warmup-steps "
        "pairs-per-step tokens-per-micro-batch max-length overlong use-peft lora-r load-in-4bit dtype gradient-checkpointing optim "
        "logging-steps eval-steps save-steps seed output-dir fresh resume-anyway columns template max-bad-rows num-processes"
    )
    assert {f"--{name}" for name in contract.split()} <= {flag.flag for flag in FLAGS.values()}


def test_a_flag_says_type_default_range_and_choices() -> None:
    assert (FLAGS["seed"].type, FLAGS["seed"].default, FLAGS["seed"].default_text) == (int, 0, "0")
    assert FLAGS["seed"].help.endswith("(at least 0 and at most 4294967295)")
    assert FLAGS["objective"].choices == tuple(OBJECTIVES)
    assert (FLAGS["use_peft"].type, FLAGS["use_peft"].off_flag, FLAGS["use_peft"].default_text) == (bool, "--no-use-peft", "")
    assert FLAGS["data"].is_list
    assert (FLAGS["learning_rate"].type, FLAGS["learning_rate"].default_text) == (float, "8e-06")
    assert FLAGS["tokens_per_micro_batch"].type is str


def test_an_option_with_different_defaults_names_them_by_objective() -> None:
    assert (FLAGS["nll_average"].default, FLAGS["nll_average"].default_text) == (None, "sequence (orpo, ulma), token (sft)")
    assert FLAGS["odds_temperature"].help.endswith("(of orpo, odds)"), "said once for both"
    assert "code. 0 is SFT. (of orpo) Weight of the odds ratio term, above 0." in FLAGS["beta"].help, "said by each"
    assert FLAGS["beta"].default_text == "0.1 (orpo, dpo, kto, ulma), 1 (odds), 2 (simpo)"
    assert FLAGS["beta"].group == FLAGS["objective"].group


@pytest.mark.parametrize("option", sorted(option_names()))
def test_the_help_of_an_option_names_the_objectives_that_have_it(option: str) -> None:
    named = [name for part in re.findall(r"\(of ([a-z, ]+)\)", FLAGS[option].help) for name in part.split(", ")]
    assert sorted(named) == sorted(objectives_with(option))


@pytest.mark.parametrize("name", [name for name, flag in FLAGS.items() if not flag.is_hidden and flag.default not in (None, "", ())])
def test_the_default_of_a_flag_is_the_default_of_the_setting(name: str) -> None:
    having = [objective for objective in OBJECTIVES if name in {option.name for option in objective_options(objective)}]
    for objective in having or ["orpo"]:
        config = resolve_config(flags={"model": "m", "data": "d", "objective": objective}).config
        assert FLAGS[name].default == (DEFAULTS[name] if name in FIELDS else config.objective_options[name])


@pytest.mark.parametrize(("name", "value"), [("load_in_8bit", True)])
def test_a_flag_of_something_planned_is_hidden_and_answered_by_name(name: str, value: object) -> None:
    assert FLAGS[name].is_hidden
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')}: {name} is not there yet: .*planned"):
        resolve_config(flags={"model": "m", "data": "d", name: value})

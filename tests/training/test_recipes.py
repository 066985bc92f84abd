"""Recipes are files of the package: they win over the defaults and lose to everything that a user says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from orpo.errors import ConfigError
from orpo.training.config import resolve_config, to_yaml
from orpo.training.recipes import FOLDER, RECIPES, recipe_text

GIVEN: dict[str, Any] = {"model": "m", "data": ["d"]}


def test_the_recipes_are_there() -> None:
    assert RECIPES == ("llama3-orpo-qlora", "orpo-full", "orpo-lora", "small-model")


def test_the_notebook_is_the_notebook() -> None:
    config = resolve_config(flags={"recipe": "llama3-orpo-qlora"}).config
    assert (config.model, config.data) == ("meta-llama/Meta-Llama-3-8B", ("mlabonne/orpo-dpo-mix-40k",))
    assert (config.use_peft, config.load_in_4bit, config.lora_r, config.lora_alpha, config.lora_dropout) == (True, True, 16, 32, 0.05)
    assert config.lora_target_modules == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (config.template, config.max_length, config.pairs_per_step, config.holdout) == ("chatml", 1024, 8, 0.01)
    assert (config.learning_rate, config.lr_scheduler_type, config.warmup_steps, config.num_train_epochs) == (8e-6, "linear", 10, 1)
    assert (config.optim, config.objective, config.objective_options["beta"]) == ("paged_adamw_8bit", "orpo", 0.1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_nothing_odd_and_is_written_out_as_a_file_that_resolves_alike(name: str, tmp_path: Path) -> None:
    found = resolve_config(flags={**GIVEN, "recipe": name})
    assert found.notes == ()
    file = tmp_path / "orpo.yaml"
    file.write_text(recipe_text(name))
    again = resolve_config(file=file, flags=GIVEN).config
    assert {**vars(again), "recipe": name} == vars(found.config)
    assert re.search(r"^model: \S", recipe_text(name), re.MULTILINE)
    assert re.search(r"^data: \S", recipe_text(name), re.MULTILINE)


@pytest.mark.parametrize("name", RECIPES)
def test_the_settings_in_a_recipes_comments_resolve(name: str, tmp_path: Path) -> None:
    text = re.sub(r"(?m)^# ([a-z_]+: )", r"\1", (FOLDER / f"{name}.yaml").read_text().split("\n", 1)[1])
    (tmp_path / "orpo.yaml").write_text("\n".join(line for line in text.splitlines() if not line.startswith("#")))
    assert resolve_config(file=tmp_path / "orpo.yaml", flags={"model": "m", "data": ["d"]}).config.model == "m"


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "orpo.yaml").write_text("recipe: orpo-lora\nlora_r: 8\nbeta: 0.2\n")
    found = resolve_config(file=tmp_path / "orpo.yaml", flags={**GIVEN, "beta": 0.3})
    assert (found.config.lora_alpha, found.config.lora_r, found.config.objective_options["beta"]) == (32, 8, 0.3)
    assert found.origins["lora_alpha"] == "recipe orpo-lora:19"
    assert found.origins["lora_r"].endswith("orpo.yaml:2")
    assert found.origins["beta"] == "flag --beta"
    assert found.origins["seed"] == "default"


def test_a_preset_wins_over_a_recipe() -> None:
    found = resolve_config(flags={**GIVEN, "recipe": "small-model", "preset": "trl"})
    assert (found.config.learning_rate, found.origins["learning_rate"]) == (1e-6, "preset trl")
    assert found.origins["warmup_steps"].startswith("recipe small-model:")


def test_the_origin_of_every_value_is_in_the_resolved_file_and_it_resolves_alike(tmp_path: Path) -> None:
    found = resolve_config(flags={**GIVEN, "recipe": "orpo-lora", "max_steps": 500})
    text = to_yaml(found)
    assert "recipe: orpo-lora  # flag --recipe\n" in text
    assert re.search(r"learning_rate: 8.0e-05  # recipe orpo-lora:\d+\n", text)
    (tmp_path / "config.yaml").write_text(text)
    assert resolve_config(file=tmp_path / "config.yaml").config == found.config


LEFT_OUT: list[tuple[dict[str, Any], str]] = [
    ({"max_steps": 500}, "num_train_epochs"),
    ({"eval_data": ["e"]}, "holdout"),
    ({"objective": "sft"}, "beta"),
    ({"use_peft": False}, "load_in_4bit, lora_r, lora_alpha, lora_dropout, lora_target_modules"),
]


@pytest.mark.parametrize(("given", "names"), LEFT_OUT, ids=[names for _, names in LEFT_OUT])
def test_what_other_settings_replace_or_do_not_read_is_left_out_and_said(given: dict[str, Any], names: str) -> None:
    found = resolve_config(flags={**GIVEN, "recipe": "llama3-orpo-qlora", **given})
    assert found.notes[0] == f"recipe llama3-orpo-qlora: {names} left out, as other settings ask for"


def test_a_wrong_name_is_answered_with_the_list_and_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(flags={**GIVEN, "recipe": "llama3-qlora"})
    assert caught.value.expected == f"one of {', '.join(RECIPES)}"
    assert caught.value.fix == "did you mean llama3-orpo-qlora?"


def test_an_error_of_a_recipes_value_names_its_line() -> None:
    with pytest.raises(ConfigError, match=r"^recipe llama3-orpo-qlora:\d+: warmup_steps .* and max_steps .* contradict"):
        resolve_config(flags={**GIVEN, "recipe": "llama3-orpo-qlora", "max_steps": 5})

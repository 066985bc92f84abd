"""resolve_config: the order of sources, the origin of every value, presets, and the text that reads back the same."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo.errors import ConfigError
from orpo.objectives.catalogue import PRESETS, needs_reference, objective_options
from orpo.training import config_check
from orpo.training.config import TrainConfig, check_config, resolve_config, to_yaml
from orpo.training.config_fields import FIELDS, OPTIMIZERS, SCHEDULERS, TRACKERS, option_names

NEEDED: dict[str, Any] = {"model": "m", "data": ["d.jsonl"]}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that writes orpo.yaml into an empty working directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str, name: str = "orpo.yaml") -> str:
        Path(name).write_text(text, encoding="utf-8")
        return name

    return _write


def test_every_field_is_described_but_the_objectives_options() -> None:
    assert {item.name for item in fields(TrainConfig)} - set(FIELDS) == {"objective_options"}
    assert all(about.help.endswith(".") and about.group for about in FIELDS.values())
    assert all(bool(about.choices) == (about.kind == "choice") for about in FIELDS.values())


def test_flags_win_over_the_file_the_file_over_the_preset_the_preset_over_defaults(write: Any) -> None:
    file = write("model: m\ndata: d.jsonl\npreset: trl\nbeta: 0.3\nseed: 7\n")
    resolved = resolve_config(file=file, flags={"seed": 9, "max_length": None, "data": []})
    config, origins = resolved.config, resolved.origins
    assert (config.seed, origins["seed"]) == (9, "flag --seed")
    assert (config.objective_options["beta"], origins["beta"]) == (0.3, "orpo.yaml:4")
    assert (config.learning_rate, origins["learning_rate"]) == (1e-6, "preset trl")
    assert (config.objective_options["nll_over"], origins["nll_over"]) == ("prompt+completion", "preset trl")
    assert (config.max_length, origins["max_length"]) == (2048, "default")
    assert (config.data, origins["data"]) == (("d.jsonl",), "orpo.yaml:2")


def test_every_setting_and_every_option_has_an_origin() -> None:
    origins = resolve_config(flags=NEEDED).origins
    assert set(origins) == set(FIELDS) | {option.name for option in objective_options("orpo")}


def test_the_defaults_are_those_of_the_paper_and_of_transformers() -> None:
    config = resolve_config(flags=NEEDED).config
    assert config.objective_options == {"beta": 0.1, "nll_over": "completion", "nll_average": "sequence", "odds_temperature": 1.0}
    assert (config.learning_rate, config.lr_scheduler_type, config.adam_beta1, config.adam_beta2) == (8e-6, "linear", 0.9, 0.999)
    assert (config.max_steps, config.num_train_epochs, config.pairs_per_step) == (-1, 1.0, 8)


def test_a_config_built_by_hand_has_the_same_defaults_as_a_resolved_one() -> None:
    by_hand = TrainConfig(model="m", data=("d.jsonl",), objective_options=resolve_config(flags=NEEDED).config.objective_options)
    assert by_hand == resolve_config(flags=NEEDED).config
    assert check_config(by_hand) == ()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_what_it_says_and_tells_how_far_it_goes(preset: str) -> None:
    resolved = resolve_config(flags={**NEEDED, "preset": preset})
    for name, value in PRESETS[preset].items():
        found = getattr(resolved.config, name) if name in FIELDS else resolved.config.objective_options[name]
        assert found == value
        assert resolved.origins[name] == f"preset {preset}"
    assert any(note.startswith(f"preset {preset}: ") for note in resolved.notes)


def test_an_option_of_another_objective_is_refused_with_the_options_there_are(write: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(file=write("model: m\ndata: d\nobjective: sft\nbeta: 0.1\n"))
    assert str(caught.value).startswith("orpo.yaml:4: objective sft has no option beta")
    assert "nll_over, nll_average" in str(caught.value)


def test_the_options_of_sft_are_its_own() -> None:
    config = resolve_config(flags={**NEEDED, "objective": "sft"}).config
    assert config.objective_options == {"nll_over": "completion", "nll_average": "token"}


def test_a_flag_for_steps_replaces_the_files_epochs_with_a_note(write: Any) -> None:
    file = write("model: m\ndata: d\nnum_train_epochs: 3\n")
    resolved = resolve_config(file=file, flags={"max_steps": 20})
    assert (resolved.config.max_steps, resolved.config.num_train_epochs, resolved.origins["num_train_epochs"]) == (20, 1.0, "default")
    assert "max_steps (flag --max-steps) replaces num_train_epochs (orpo.yaml:3)" in resolved.notes


def test_a_flag_for_epochs_replaces_the_files_steps_with_a_note(write: Any) -> None:
    resolved = resolve_config(file=write("model: m\ndata: d\nmax_steps: 500\n"), flags={"num_train_epochs": 2.0})
    assert (resolved.config.max_steps, resolved.config.num_train_epochs) == (-1, 2.0)
    assert "num_train_epochs (flag --num-train-epochs) replaces max_steps (orpo.yaml:3)" in resolved.notes


def test_a_flag_that_sets_no_length_leaves_the_files_epochs(write: Any) -> None:
    resolved = resolve_config(file=write("model: m\ndata: d\nnum_train_epochs: 3\n"), flags={"max_steps": -1})
    assert (resolved.config.max_steps, resolved.config.num_train_epochs) == (-1, 3.0)


def test_a_path_object_and_a_single_text_are_data() -> None:
    assert resolve_config(flags={"model": Path("m"), "data": Path("d.jsonl")}).config.data == ("d.jsonl",)


def test_an_unknown_flag_is_named_as_a_flag() -> None:
    with pytest.raises(ConfigError, match=r"^--learningrate: there is no setting 'learningrate'"):
        resolve_config(flags={**NEEDED, "learningrate": 1e-5})


def test_names_of_one_setting_in_file_and_flag_do_not_contradict_the_flag_wins(write: Any) -> None:
    resolved = resolve_config(file=write("model: m\ndata: d\npref_beta: 0.2\n"), flags={"beta": 0.4})
    assert (resolved.config.objective_options["beta"], resolved.origins["beta"]) == (0.4, "flag --beta")


def test_the_resolved_text_names_the_origin_of_each_value(write: Any) -> None:
    file = write("model: m\ndata: [a.jsonl, b.jsonl]\npref_beta: 0.25\npreset: trl\n")
    text = to_yaml(resolve_config(file=file, flags={"seed": 3}))
    assert "beta: 0.25  # orpo.yaml:3 (as pref_beta)\n" in text
    assert "learning_rate: 1.0e-06  # preset trl\n" in text
    assert "data: [a.jsonl, b.jsonl]  # orpo.yaml:2\n" in text
    assert "seed: 3  # flag --seed\n" in text
    assert "max_length: 2048  # default\n" in text
    assert "# lora_r: 16  # not read: use_peft is off\n" in text


def test_what_a_run_does_not_read_stays_out_so_that_the_text_can_be_read_again(write: Any) -> None:
    first = resolve_config(flags={**NEEDED, "max_steps": 5, "optim": "sgd"})
    text = to_yaml(first)
    assert "# num_train_epochs: 1.0  # not read: max_steps is set\n" in text
    assert "# adam_beta1: 0.9  # not read: optim is sgd\n" in text
    assert resolve_config(file=write(text)).config == first.config


# Any text a file name or a flag may hold: quotes, colons, comment signs, texts that look like numbers, control characters.
TEXTS = st.one_of(
    st.sampled_from(
        ["1e5", "a\nb", "-.5E3", "yes", "null", "~", "0x1F", "1_000", "a: b", "a #b", "- x", "'", '"', "on", "2026-01-02", "*a", "é\u2028ü"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40),
).filter(lambda text: bool(text.strip()))
PATHS = st.lists(TEXTS, min_size=1, max_size=3)


def _number(about: Any) -> st.SearchStrategy[Any]:
    """Numbers inside the range of a setting."""
    if about.kind == "int":
        return st.integers(int(about.least or 0), int(about.most or 10**6))
    low, high = about.least or about.above or 0.0, about.most or about.below or 1e6
    return st.floats(low, high, exclude_min=about.above is not None, exclude_max=about.below is not None)


SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    **{name: _number(about) for name, about in FIELDS.items() if about.kind in ("int", "float")},
    **{name: st.sampled_from(about.choices) for name, about in FIELDS.items() if about.kind == "choice"},
    **{name: st.booleans() for name, about in FIELDS.items() if about.kind == "bool"},
    "columns": TEXTS,
    "template": TEXTS,
    "beta": st.floats(0, 100),
    "odds_temperature": st.floats(1e-300, 100),
    "nll_over": st.sampled_from(["completion", "prompt+completion"]),
    "tokens_per_micro_batch": st.one_of(st.just("auto"), st.integers(2, 10**6)),
    "lora_target_modules": st.one_of(st.just("all-linear"), st.lists(st.sampled_from(["q_proj", "1e5", "no"]), min_size=1)),
    "report_to": st.one_of(st.just("none"), st.lists(st.sampled_from(sorted(TRACKERS)), min_size=1)),
    "max_steps": st.integers(1, 10**6),
    "warmup_steps": st.one_of(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True)),
}


def _consistent(chosen: dict[str, Any]) -> dict[str, Any]:
    """Random settings without those that contradict another."""
    if "recipe" in chosen:  # its own settings would contradict most others
        return {name: value for name, value in chosen.items() if name in ("recipe", "seed", "max_length", "weight_decay", "save_steps")}
    unwanted = {"eval_steps"}
    if "max_steps" in chosen:
        unwanted |= {"num_train_epochs"} | ({"warmup_steps"} if chosen.get("warmup_steps", 0) > chosen["max_steps"] else set())
    if not chosen.get("use_peft"):
        unwanted |= {"load_in_4bit", *(name for name in chosen if name.startswith("lora_"))}
    if "adamw" not in chosen.get("optim", "adamw"):
        unwanted |= {"adam_beta1", "adam_beta2"}
    if chosen.get("lr_scheduler_type") in ("constant", "polynomial"):
        unwanted |= {"warmup_steps", "learning_rate"}
    if (
        chosen.get("load_in_4bit")
        or chosen.get("num_processes") == 1
        or chosen.get("optim", "adamw_torch") not in config_check.SHARDED_OPTIMIZERS
    ):
        unwanted |= {"sharding"}
    objective = chosen.get("objective", "orpo")
    unwanted |= option_names() - {option.name for option in objective_options(objective)}
    unwanted |= set() if objective == "orpo" else {"preset"}
    unwanted |= {"pairs_per_step"} if objective == "kto" and chosen.get("pairs_per_step", 8) < 2 else set()
    with_adapters = bool(chosen.get("use_peft"))
    if not needs_reference(objective) or (chosen.get("reference") == "adapter" and not with_adapters):
        unwanted |= {"reference", "reference_cache"}
    elif chosen.get("reference", "auto") in (("adapter", "copy", "auto") if with_adapters else ("adapter", "copy")):
        unwanted |= {"reference_cache"}
    return {name: value for name, value in chosen.items() if name not in unwanted}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(model=TEXTS, data=PATHS, chosen=st.fixed_dictionaries({}, optional=SETTINGS).map(_consistent))
def test_reading_the_resolved_text_gives_the_same_config(
    model: str, data: list[str], chosen: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_check.importlib.util, "find_spec", lambda name: name)  # as if every tracker were installed
    first = resolve_config(flags={"model": model, "data": data, **chosen})
    file = tmp_path / "config.resolved.yaml"
    file.write_text(to_yaml(first), encoding="utf-8")
    again = resolve_config(file=file)
    assert again.config == first.config
    assert all(re.fullmatch(r"|# .*|[a-z_0-9]+: .*  # [^\n]*", line) for line in to_yaml(first).split("\n"))


def test_a_file_name_with_a_line_break_cannot_break_out_of_its_comment(tmp_path: Path) -> None:
    file = tmp_path / "a\nseed: 5 #.yaml"
    file.write_text("model: m\ndata: d\n")
    text = to_yaml(resolve_config(file=file))
    assert "\nseed: 0  # default\n" in text
    assert "\nseed: 5" not in text


def test_reading_settings_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, orpo.training.config, orpo.training.config_flags as f; f.flag_table(); "
        "orpo.training.config.resolve_config(flags={'model': 'm', 'data': 'd'}); "
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_schedule_is_built_by_transformers_from_what_a_config_holds() -> None:
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8e-6)
    for name in SCHEDULERS:
        schedule = get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=10)
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR), name


def test_every_optimizer_and_tracker_is_one_of_transformers() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.training_args import OptimizerNames

    assert set(OPTIMIZERS) <= {item.value for item in OptimizerNames}
    assert set(TRACKERS) <= set(INTEGRATION_TO_CALLBACK)


def test_the_ranges_of_options_are_those_the_objective_itself_enforces() -> None:
    from orpo.objectives.catalogue import bound

    for name, value in (("beta", -0.1), ("beta", float("inf")), ("odds_temperature", 0.0), ("odds_temperature", float("nan"))):
        with pytest.raises(ConfigError, match=f"{name} is"):
            resolve_config(flags={**NEEDED, name: value})
        with pytest.raises(ConfigError, match=f"{name} is"):
            bound("orpo", {name: value})
    bound("orpo", resolve_config(flags={**NEEDED, "beta": 0}).config.objective_options)

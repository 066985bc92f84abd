"""TRL 1.16's own classes: every field is known, every default is theirs, and a dump of them can be read."""

from __future__ import annotations

import dataclasses
import json
import warnings
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from orpo import ORPOConfig
from orpo.errors import ConfigError
from orpo.moving_in.foreign_file import read_foreign
from orpo.moving_in.from_trl import TRL
from orpo.moving_in.orpo_config import notes_of
from orpo.moving_in.recognised import recognised
from orpo.moving_in.translation import moved_in
from orpo.training.config_file import Setting

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]

ADDED = {
    *("warmup_ratio", "evaluation_strategy", "max_prompt_length", "label_pad_token_id", "truncation_mode"),
    *("overwrite_output_dir", "logging_dir", "save_safetensors", "group_by_length"),
}
"""Names of older versions."""


def classes() -> dict[str, Any]:
    from trl import DPOConfig, ModelConfig, ScriptArguments, SFTConfig
    from trl.experimental.kto import KTOConfig
    from trl.experimental.orpo import ORPOConfig as TheirConfig
    from trl.scripts.utils import DatasetMixtureConfig

    found = (TheirConfig, DPOConfig, KTOConfig, SFTConfig, ModelConfig, ScriptArguments, DatasetMixtureConfig)
    return {found_class.__name__: found_class for found_class in found}


def default_of(item: Any) -> Any:
    return item.default_factory() if item.default is dataclasses.MISSING else item.default


def test_the_fields_and_their_defaults_are_trls() -> None:
    theirs = {item.name: default_of(item) for item in dataclasses.fields(classes()["ORPOConfig"])}
    ours = {item.name: default_of(item) for item in dataclasses.fields(ORPOConfig)}
    assert {name: ours.get(name, "missing") for name in theirs} == theirs
    assert set(ours) - set(theirs) == ADDED
    assert all(ours[name] is None for name in ADDED)


@pytest.mark.parametrize(
    "name", ["ORPOConfig", "DPOConfig", "KTOConfig", "SFTConfig", "ModelConfig", "ScriptArguments", "DatasetMixtureConfig"]
)
def test_every_field_of_trls_classes_is_known_and_at_its_default_is_supported(name: str) -> None:
    found = [Setting(item.name, plain(default_of(item)), name) for item in dataclasses.fields(classes()[name])]
    trainer = {"DPOConfig": "dpo", "KTOConfig": "kto", "SFTConfig": "sft"}.get(name, "orpo")
    sequential = Setting("train_sampling_strategy", "random", name)  # KTO's default; the order of pairs is always drawn here
    found = [sequential if setting.name == "train_sampling_strategy" else setting for setting in found]
    moved = moved_in(TRL, [Setting("trainer", trainer, name), *found])
    assert [(row.setting.name, row.became.why) for row in moved.of("unsupported")] == []


def plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def test_a_dump_of_trls_own_config_is_read_and_means_the_same(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = classes()["ORPOConfig"](
            output_dir="out",
            beta=0.3,
            bf16=False,
            max_steps=20,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=3,
            warmup_steps=5,
        )
    (tmp_path / "args.json").write_text(json.dumps(args.to_dict()))
    found = read_foreign(tmp_path / "args.json")
    tool, _ = recognised(found, file="args.json")
    moved = moved_in(tool, found)
    values = {name: setting.value for name, setting in moved.settings.items()}
    expected = {"beta": 0.3, "max_steps": 20, "pairs_per_step": 6, "dtype": "float32", "warmup_steps": 5, "learning_rate": 1e-6, "seed": 42}
    assert (tool.name, moved.of("unsupported")) == ("TRL", [])
    assert {name: values[name] for name in expected} == expected


def test_the_loss_of_a_config_that_says_nothing_is_trls() -> None:
    settings = {name: setting.value for name, setting in ORPOConfig(output_dir="out").moved_in().settings.items()}
    expected = {"objective": "orpo", "preset": "trl", "learning_rate": 1e-6, "num_train_epochs": 3.0, "pairs_per_step": 8}
    expected |= {"max_length": 1024, "overlong": "cut-completion", "seed": 42, "save_steps": 500, "logging_steps": 10}
    assert {name: settings[name] for name in expected} == expected
    assert "dtype" not in settings, "bf16 where it is fast"


def test_what_is_set_after_the_config_was_made_counts() -> None:
    args = ORPOConfig(output_dir="out")
    args.beta = 0.4
    args.gradient_checkpointing_kwargs = {"use_reentrant": False}
    moved = args.moved_in()
    assert moved.settings["beta"].value == 0.4
    assert notes_of(moved)[-1] == "ORPOConfig: not needed here: gradient_checkpointing_kwargs"


def test_defaults_are_not_told() -> None:
    (note,) = notes_of(ORPOConfig(output_dir="out").moved_in())
    assert "output_dir" in note


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("push_to_hub", True, "never pushes"),
        ("deepspeed", "ds.json", "sharding library"),
        ("fp16", True, "no float16"),
        ("neftune_noise_alpha", 5.0, "the loss is the published one"),
        ("label_smoothing_factor", 0.1, "the loss is the published one"),
        ("load_best_model_at_end", True, "the last model is kept"),
        ("is_encoder_decoder", True, "decoder-only"),
        ("trust_remote_code", True, "never run"),
        ("report_to", ["neptune"], "not installed"),
        ("hub_token", "hf_secret", "secrets do not belong"),
    ],
)
def test_a_field_without_counterpart_raises_and_says_why(field: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ORPOConfig(output_dir="out", **{field: value})
    assert said in str(caught.value)
    assert "  to fix: " in str(caught.value)


def test_all_that_is_refused_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"optim is 'lion_32bit'.*neftune_noise_alpha is 5"):
        ORPOConfig(output_dir="out", optim="lion_32bit", neftune_noise_alpha=5.0)


def test_bf16_may_be_asked_for_on_a_cpu() -> None:
    args = ORPOConfig(output_dir="out", bf16=True)
    assert (args.bf16, args.moved_in().settings["dtype"].value) == (True, "bfloat16")


def test_a_command_line_is_parsed_as_transformers_parses_it() -> None:
    from transformers import HfArgumentParser

    line = "--output_dir out --beta 0.3 --gradient_checkpointing False --warmup_ratio 0.1 --eval_strategy steps --eval_steps 5"
    (args,) = HfArgumentParser(ORPOConfig).parse_args_into_dataclasses(line.split())
    settings = args.moved_in(beside={"eval_data": Setting("eval_data", "held", "here")}).settings
    assert {name: settings[name].value for name in ("beta", "warmup_steps", "eval_steps")} == {
        "beta": 0.3,
        "warmup_steps": 0.1,
        "eval_steps": 5,
    }


def test_the_processes_of_a_launcher_multiply_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    args = ORPOConfig(output_dir="out", per_device_train_batch_size=3)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert args.moved_in().settings["pairs_per_step"].value == 12


def test_what_the_package_exports_is_pinned_and_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    import orpo

    assert orpo.__all__ == ["ORPOConfig", "ORPOTrainer", "__version__", "train"]
    assert all(hasattr(orpo, name) for name in orpo.__all__)
    code = "import orpo, sys; print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

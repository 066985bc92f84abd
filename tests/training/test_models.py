"""Models and tokenizers that cannot be trained are refused in words, before any weights are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from orpo.data.world import builtin_model_path
from orpo.errors import ConfigError
from orpo.training import models
from orpo.training.models import ModelShape
from orpo.training.unloadable import unloadable


def test_a_shape_is_read_from_the_config_alone(make_tiny_llama: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "m", vocabulary=300, positions=128)
    (folder / "model.safetensors").unlink()
    assert models.load_shape(str(folder)) == ModelShape("llama", 300, 128)


LOADERS = {
    "tokenizer": models.load_tokenizer,
    "config": models.load_shape,
    "weights": lambda folder: models.load_model(folder, dtype=torch.float32),
}


@pytest.mark.parametrize("what", LOADERS)
def test_a_folder_that_is_missing_is_told_with_the_nearest_name(what: str, tmp_path: Path) -> None:
    (tmp_path / "qwen-base").mkdir()
    with pytest.raises(ConfigError) as caught:
        LOADERS[what](str(tmp_path / "qwen-bsae"))
    assert caught.value.problem == f"the folder {tmp_path / 'qwen-bsae'} does not exist"
    assert caught.value.fix == f"did you mean {tmp_path / 'qwen-base'}?"
    assert caught.value.doing.startswith(f"loading the {what} of")


def test_a_missing_folder_without_a_near_name_gets_plain_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        models.load_shape(str(tmp_path / "nowhere" / "at-all"))
    assert "config.json, tokenizer.json, model.safetensors" in caught.value.fix


@pytest.mark.parametrize("what", LOADERS)
def test_a_file_is_no_model(what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"\0" * 10)
    with pytest.raises(ConfigError, match=r"is a file; a folder with config\.json, tokenizer and safetensors is expected"):
        LOADERS[what](str(path))


@pytest.mark.parametrize("what", LOADERS)
def test_a_folder_without_what_is_needed_is_named_with_what_it_lacks(what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the folder {tmp_path} holds no {what} that transformers can read") as caught:
        LOADERS[what](str(tmp_path))
    assert "config.json, tokenizer.json, model.safetensors" in caught.value.fix


@pytest.mark.parametrize("what", LOADERS)
def test_a_hub_name_without_network_says_that_it_is_no_folder_and_could_not_be_fetched(what: str) -> None:
    with pytest.raises(
        ConfigError, match="nobody-here/no-such-model is no folder here, and it could not be fetched from the Hub"
    ) as caught:
        LOADERS[what]("nobody-here/no-such-model")
    assert "HF_HUB_OFFLINE=1 forbids it" in caught.value.problem
    assert "unset HF_HUB_OFFLINE" in caught.value.fix


class GatedRepoError(Exception):
    """Named as the Hub's library names it."""


class RepositoryNotFoundError(Exception):
    """Likewise."""


@pytest.mark.parametrize(
    ("cause", "problem", "fix"),
    [
        (GatedRepoError("401"), "org/name is gated", "ask for access on the page of org/name"),
        (RepositoryNotFoundError("404"), "there is no model org/name on the Hub", "check its name"),
        (ConnectionError("refused"), "could not be fetched from the Hub: it said so", "check the name and the network"),
        (ConnectionError("no network"), "could not be fetched from the Hub: there is no network", "connect this machine"),
    ],
)
def test_what_the_hub_answered_decides_what_to_do(monkeypatch: pytest.MonkeyPatch, cause: Exception, problem: str, fix: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("orpo.training.unloadable.hub_in_reach", lambda: "no network" not in str(cause))
    error = OSError("it said so\nand more")
    error.__cause__ = cause
    said = unloadable("org/name", "config", error)
    assert problem in said.problem
    assert fix in said.fix


def test_the_built_in_model_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert models.load_shape("builtin") == models.load_shape(str(builtin_model_path()))
    (tmp_path / "builtin").mkdir()
    monkeypatch.chdir(tmp_path)
    assert models.located("builtin") == str(tmp_path / "builtin")


def test_an_encoder_decoder_model_is_refused(tmp_path: Path) -> None:
    transformers.T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"encoder-decoder model \(t5\); orpo trains decoder-only"):
        models.load_shape(str(tmp_path))


REMOTE = "raise SystemExit('code of the model folder was run')\n"


@pytest.mark.parametrize("what", ["config", "weights"])
def test_code_of_a_model_folder_is_never_run(what: str, tiny_llama: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    config |= {"model_type": "own-kind", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(REMOTE)
    with pytest.raises(ConfigError, match="needs code of its own from its repository, and orpo never runs such code") as caught:
        LOADERS[what](str(tmp_path))
    assert "transformers itself implements" in caught.value.fix


def test_code_of_a_tokenizer_folder_is_never_run(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}})
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own-kind", "auto_map": {"AutoConfig": "own.OwnConfig"}}))
    (tmp_path / "own.py").write_text(REMOTE)
    with pytest.raises(ConfigError, match="never runs such code"):
        models.load_tokenizer(str(tmp_path))


def test_weights_that_are_a_pickle_are_not_opened(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    torch.save({"x": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="holds no weights that transformers can read"):
        models.load_model(str(tmp_path), dtype=torch.float32)


def test_weights_have_the_dtype_that_was_asked_for(tiny_llama: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert {parameter.dtype for parameter in models.load_model(str(tiny_llama), dtype=dtype).parameters()} == {dtype}


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tiny_llama: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_llama))
    shape = ModelShape("llama", 400, 2048)
    assert len(tokenizer) == 420
    with pytest.raises(ConfigError, match=r"has 420 tokens, its model only 400 embedding rows"):
        models.check_tokenizer(tokenizer, shape, "m", num_new=0)
    with pytest.raises(ConfigError, match="420 tokens"):
        models.check_tokenizer(tokenizer, shape, "m", num_new=19)
    # Tokens that a template added get rows of their own.
    models.check_tokenizer(tokenizer, shape, "m", num_new=20)


def test_a_tokenizer_without_end_of_sequence_is_refused(tiny_llama: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_llama))
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-sequence token, so the model could never learn to stop") as caught:
        models.check_tokenizer(tokenizer, ModelShape("llama", 512, 2048), "m", num_new=0)
    assert "eos_token" in caught.value.fix


def test_a_missing_padding_token_is_told_and_the_tokenizer_left_as_it_is(tiny_llama: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_llama))
    shape = ModelShape("llama", 512, 2048)
    (note,) = models.check_tokenizer(tokenizer, shape, "m", num_new=0)
    assert "no padding token: '</s>' stands in" in note
    assert tokenizer.pad_token is None
    tokenizer.pad_token = "<s>"
    assert models.check_tokenizer(tokenizer, shape, "m", num_new=0) == []


def test_the_default_length_is_cut_to_the_positions_and_an_explicit_one_is_refused() -> None:
    short, endless = ModelShape("gpt2", 10, 64), ModelShape("bloom", 10, None)
    assert models.effective_max_length(2048, short, is_explicit=False) == 64
    assert models.effective_max_length(64, short, is_explicit=True) == 64
    assert models.effective_max_length(9999, endless, is_explicit=True) == 9999
    with pytest.raises(ConfigError, match="max_length is 65, but the model has only 64 positions"):
        models.effective_max_length(65, short, is_explicit=True)


def test_new_rows_are_near_the_mean_of_the_old_ones_and_leave_those_alone(tiny_llama: Path) -> None:
    def rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        body = models.load_model(str(tiny_llama), dtype=torch.float32)
        old = body.get_input_embeddings().weight.detach().clone()
        models.add_token_rows(body, 514, [512, 513], seed=seed)
        return old, body.get_input_embeddings().weight.detach()

    old, new = rows(3)
    assert new.shape == (514, 64)
    assert torch.equal(new[:512], old)
    distance = (new[512:] - old.mean(0)).norm(dim=1)
    expected = 0.1 * old.std(0).norm()
    assert ((distance > 0.6 * expected) & (distance < 1.6 * expected)).all()
    assert torch.equal(rows(3)[1], new)
    assert not torch.equal(rows(4)[1], new)


@pytest.mark.parametrize(("targets", "near"), [(("q_prj",), "q_proj"), (("q_proj", "dow_proj"), "down_proj"), ("v_porj", "v_proj")])
def test_a_lora_target_that_is_no_layer_is_answered_with_the_nearest(tiny_llama: Path, targets: str | tuple[str, ...], near: str) -> None:
    with pytest.raises(ConfigError, match="no linear layer") as caught:
        models.check_lora_targets(str(tiny_llama), targets)
    assert caught.value.fix == f"did you mean {near}?"


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), "down_proj"])
def test_lora_targets_that_exist_pass(tiny_llama: Path, targets: str | tuple[str, ...]) -> None:
    models.check_lora_targets(str(tiny_llama), targets)

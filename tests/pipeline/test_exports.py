"""Exports are checked before they are published, refuse what they cannot translate, and overwrite nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from orpo.errors import ConfigError, OrpoError
from orpo.pipeline.agreement import agreement
from orpo.pipeline.exports import export
from orpo.pipeline.ollama import Dialect, dialect_of, known_dialects, modelfile

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def runs(tiny_chat_llama: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A LoRA run and a run of all weights on a model with a ChatML template."""
    import orpo

    folder = tmp_path_factory.mktemp("runs")
    shared: dict[str, Any] = {"model": str(tiny_chat_llama), "data": str(pairs_file), "max_steps": 3, "pairs_per_step": 4}
    shared |= {"dtype": "float32", "template": "raw", "num_samples": 2}
    kinds: dict[str, Any] = {"lora": {"use_peft": True, "lora_r": 12, "learning_rate": 1e-2}, "full": {"learning_rate": 1e-3}}
    made = {name: orpo.train(**shared, output_dir=str(folder / name), **settings) for name, settings in kinds.items()}
    return {name: Path(run.run_dir) for name, run in made.items()}


def silent(_: str) -> None:
    """Says nothing."""


def test_agreement_is_the_share_of_the_spread_that_differs() -> None:
    expected = [torch.tensor([[1.0, -1.0, 0.0], [3.0, -3.0, 0.0]])]
    found = [expected[0] + torch.tensor([[5.0], [7.0]]) + torch.tensor([[0.2, -0.2, 0.0], [0.0, 0.0, 0.0]])]
    measured = agreement(found, expected)
    assert measured.difference == pytest.approx((0.08 / 20) ** 0.5)
    assert (measured.same_choice, measured.num_positions) == (1.0, 2)


def test_a_merge_that_lost_the_adapter_is_not_published(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    monkeypatch.setattr(peft.PeftModel, "merge_and_unload", lambda self: self.unload(), raising=False)
    with pytest.raises(OrpoError, match="does not say what the adapter on its base in full says") as caught:
        export(str(runs["lora"]), "merged", out=str(tmp_path / "m"), dtype="float32", say=silent)
    assert caught.value.exit_code == 1
    assert "nothing was published" in caught.value.doing
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        export(str(runs["lora"]), "merged", out=str(tmp_path / "m"), say=silent)


def test_a_model_of_which_all_weights_were_trained_is_written_in_the_dtype_asked_for(runs: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    export(str(runs["full"]), "merged", out=str(tmp_path / "m"), say=said.append)
    written = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype="auto")
    assert written.dtype == torch.bfloat16
    assert "against the model of the run" in "\n".join(said)


def test_onto_4_bits_is_refused_for_a_run_that_was_not_in_4_bits(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--base 4bit is for runs with load_in_4bit"):
        export(str(runs["lora"]), "merged", out=str(tmp_path / "m"), base="4bit", say=silent)


CONVERTER = """
import pathlib, sys
assert (pathlib.Path(sys.argv[1]) / "model.safetensors").is_file()
pathlib.Path(sys.argv[3]).write_bytes({content!r})
print("the converter's last words", file=sys.stderr)
sys.exit({code})
"""


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a stand-in for llama.cpp's converter where LLAMA_CPP names it: it wants the arguments of the real one."""

    def make(content: bytes = b"GGUF and more", code: int = 0) -> None:
        (tmp_path / "llama.cpp").mkdir()
        (tmp_path / "llama.cpp" / "convert_hf_to_gguf.py").write_text(CONVERTER.format(content=content, code=code))
        monkeypatch.setenv("LLAMA_CPP", str(tmp_path / "llama.cpp"))

    return make


def test_gguf_is_what_the_converter_of_llama_cpp_writes(runs: dict[str, Path], tmp_path: Path, converter: Callable[..., None]) -> None:
    converter()
    done = export(str(runs["lora"]), "gguf", out=str(tmp_path / "out"), say=silent)
    assert [path.name for path in done.folder.iterdir()] == ["lora-bf16.gguf"]
    assert "llama-quantize" in done.next_step
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "what was needed in between is gone"


@pytest.mark.parametrize(("content", "code"), [(b"GGUF", 3), (b"nothing of the kind", 0)])
def test_a_converter_that_fails_is_quoted_and_nothing_is_published(
    runs: dict[str, Path], tmp_path: Path, converter: Callable[..., None], content: bytes, code: int
) -> None:
    converter(content, code)
    with pytest.raises(OrpoError, match="the converter's last words"):
        export(str(runs["full"]), "gguf", out=str(tmp_path / "out"), say=silent)
    assert not (tmp_path / "out").exists()


def test_without_llama_cpp_gguf_names_the_steps(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"llama\.cpp is not here") as caught:
        export(str(runs["lora"]), "gguf", out=str(tmp_path / "out"), say=silent)
    assert "git clone https://github.com/ggml-org/llama.cpp" in caught.value.fix
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no convert_hf_to_gguf\.py"):
        export(str(runs["lora"]), "gguf", out=str(tmp_path / "out"), say=silent)


def test_ollama_gets_weights_and_a_modelfile_for_text_as_it_was_trained(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = export(str(runs["lora"]), "ollama", out=str(tmp_path / "out"), say=silent)
    text = (done.folder / "Modelfile").read_text()
    assert text == 'FROM ./model\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 2048\n'
    assert (done.folder / "model" / "model.safetensors").is_file()
    assert done.next_step == f"ollama create lora -f {done.folder / 'Modelfile'} && ollama run lora"


def test_vllm_serves_an_adapter_on_its_base_with_the_trained_tokenizer(
    runs: dict[str, Path], tiny_chat_llama: Path, tmp_path: Path
) -> None:
    done = export(str(runs["lora"]), "vllm", out=str(tmp_path / "out"), say=silent)
    expected = f"vllm serve {tiny_chat_llama} --tokenizer {done.folder} --enable-lora --lora-modules lora={done.folder} --max-lora-rank 16"
    assert done.next_step == expected
    assert (done.folder / "serve.sh").read_text() == f"#!/bin/sh\nexec {expected}\n"
    assert (done.folder / "adapter_model.safetensors").is_file()


def test_vllm_gets_a_merged_model_where_the_adapter_brings_rows_of_new_tokens(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    (copy / "adapter").mkdir(parents=True)
    for path in [*runs["lora"].glob("adapter/*"), *runs["lora"].glob("*.*")]:
        (copy / path.relative_to(runs["lora"])).write_bytes(path.read_bytes())
    file = copy / "adapter" / "adapter_config.json"
    settings = json.loads(file.read_text())
    said: list[str] = []
    file.write_text(json.dumps({**settings, "trainable_token_indices": {"embed_tokens": [2, 3]}}))
    with pytest.raises(Exception, match="trainable_tokens"):  # the rows themselves are not in this adapter
        export(str(copy), "vllm", out=str(tmp_path / "out"), say=said.append)
    assert said[0] == "weights      merged: the adapter brings rows of new tokens, which vLLM does not take in an adapter"


def go_text(template: str, messages: list[dict[str, str]]) -> str:
    """What Ollama's template language makes of `messages`, for the part of it that is used here."""
    match = re.fullmatch(r"\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*)", template, re.DOTALL)
    assert match
    turn, end = match.groups()
    choice = re.fullmatch(r'\{\{ if eq \.Role "user" \}\}(.*)\{\{ else if eq \.Role "assistant" \}\}(.*)\{\{ end \}\}', turn, re.DOTALL)
    text = ""
    for message in messages:
        own = turn if choice is None else dict(zip(("user", "assistant"), choice.groups(), strict=True)).get(message["role"], "")
        text += own.replace("{{ .Role }}", message["role"]).replace("{{ .Content }}", message["content"])
    return text + end


TURNS = [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(("user", "assistant", "user"))]


@pytest.mark.parametrize("dialect", known_dialects("</s>"), ids=lambda dialect: dialect.name)
def test_a_modelfile_writes_what_the_dialect_writes(dialect: Dialect) -> None:
    messages = [{"role": "system", "content": "rules"}, *TURNS] if dialect.has_system else TURNS
    assert go_text(dialect.go_template(), messages) == dialect.text(messages)


JINJA = {
    "ChatML": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "Llama 3": "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "Mistral": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}{{ raise_exception('no system here') }}{% endif %}{% endfor %}",
    "Zephyr": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
}


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(tiny_llama)


@pytest.mark.parametrize("name", JINJA)
def test_a_chat_template_is_known_by_what_it_writes(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = JINJA[name]
    dialect = dialect_of(tokenizer)
    assert dialect.name == name
    assert "</s>" in dialect.stops, "the end of a sequence ends a reply as well"
    rendered = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True).removeprefix("<s>")
    assert go_text(dialect.go_template(), TURNS) == rendered


def test_a_system_message_of_the_template_goes_into_the_modelfile(tokenizer: Any) -> None:
    own = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    tokenizer.chat_template = own + JINJA["ChatML"]
    dialect = dialect_of(tokenizer)
    assert (dialect.name, dialect.system) == ("ChatML", "Be kind.")
    assert 'SYSTEM """Be kind."""\n' in modelfile("./m", dialect, num_ctx=4096)


def test_an_unknown_template_is_refused_with_what_it_writes(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"
    with pytest.raises(ConfigError, match="is none that is known here; three turns become '<user>first question") as caught:
        dialect_of(tokenizer)
    assert "ChatML, Llama 3, Zephyr, Mistral" in caught.value.expected
    assert dialect_of(tokenizer, is_raw=True).go_template() == "{{ .Prompt }}"

"""The notebook's recipe as one command: pairs in, and at the end a folder that plain transformers loads and that says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open

import orpo
from orpo.data.world.pairs import world_pairs, write_world_jsonl
from orpo.pipeline.exports import export
from orpo.runs.summary import read_summary

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

NEW = ("<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def notebook(make_tiny_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the recipe on 200 generated pairs and a tiny base model without chat template, in 4 bits."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install 'orpo[qlora]')")
    folder = tmp_path_factory.mktemp("notebook")
    base = make_tiny_llama(folder / "base", hidden=128, vocabulary=300)
    write_world_jsonl(folder / "pairs.jsonl", world_pairs("train", 200))
    # The recipe's rate is for 5,000 steps of a large model; in 25 steps it would change nothing that a comparison could see.
    given = {
        "model": str(base),
        "data": str(folder / "pairs.jsonl"),
        "learning_rate": 3e-3,
        "output_dir": str(folder / "run"),
        "num_samples": 2,
    }
    return Path(orpo.train(recipe="llama3-orpo-qlora", **given).run_dir)


def test_one_command_trains_adapters_on_4_bit_weights_with_the_recipes_settings(notebook: Path) -> None:
    summary = read_summary(notebook)
    assert (summary.status, summary.steps) == ("done", 25)
    assert summary.sections["model"]["load_in_4bit"]
    resolved = (notebook / "config.resolved.yaml").read_text()
    assert "load_in_4bit: true  # recipe llama3-orpo-qlora:" in resolved
    assert "learning_rate: 0.003  # flag --learning-rate" in resolved
    assert "optim: paged_adamw_8bit  # recipe llama3-orpo-qlora:" in resolved
    adapter = json.loads((notebook / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (16, 32, 0.05)
    assert len(adapter["target_modules"]) == 7


def test_the_rows_of_the_new_tokens_are_trained_and_saved_once(notebook: Path) -> None:
    with safe_open(notebook / "adapter" / "adapter_model.safetensors", "pt") as file:
        rows = [name for name in file.keys() if "embed" in name or "lm_head" in name]  # noqa: SIM118
        assert [file.get_slice(name).get_shape() for name in rows] == [[2, 128]]


def test_dropout_is_said_to_be_why_prompts_are_computed_twice(notebook: Path) -> None:
    facts = read_summary(notebook).sections["model"]
    assert facts["engine"] == "packed"
    assert facts["engine_refused"]["shared"].startswith("dropout 0.05")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_merged_folder_says_in_plain_transformers_what_the_adapter_says(notebook: Path, tmp_path: Path, dtype: str) -> None:
    said: list[str] = []
    folder = export(str(notebook), "merged", out=str(tmp_path / "merged"), dtype=dtype, say=said.append).folder
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    assert model.dtype == getattr(torch, dtype)
    assert getattr(model.config, "quantization_config", None) is None
    base = transformers.AutoModelForCausalLM.from_pretrained(notebook.parent / "base", dtype=torch.float32)
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    import peft

    adapted = peft.PeftModel.from_pretrained(base, notebook / "adapter").eval()
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "what is the capital?"}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected, found = adapted(**ids).logits, model(**ids).logits.float()
        with adapted.disable_adapter():
            untrained = adapted(**ids).logits
    allowed = 1e-4 if dtype == "float32" else 0.05
    assert (found - expected).abs().max() < allowed * expected.std()
    assert (untrained - expected).abs().max() > 10 * allowed * expected.std(), "training changed something to lose"
    reply = model.generate(**ids, max_new_tokens=5, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    assert ids["input_ids"].shape[1] < reply.shape[1] <= ids["input_ids"].shape[1] + 5
    assert tokenizer.convert_tokens_to_ids(NEW[1]) in model.generation_config.eos_token_id
    assert any("against the adapter on its base in full" in line for line in said)
    assert any("on 4-bit weights" in line for line in said)


def test_onto_the_4_bit_weights_it_is_the_model_that_was_trained(notebook: Path, tmp_path: Path) -> None:
    said: list[str] = []
    export(str(notebook), "merged", out=str(tmp_path / "m"), dtype="float32", base="4bit", say=said.append)
    assert "the adapter on its 4-bit base, as trained" in "\n".join(said)
    card = (tmp_path / "m" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "the adapter on its 4-bit base, as trained" in card

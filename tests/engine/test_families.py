"""Families of models: each takes the fastest path that gives the numbers of single rows, and says why it takes no faster one."""

from __future__ import annotations

import os
from pathlib import Path as Folder

import pytest
import torch
from families import LONGEST, NOT_TRIED, SHARING, TOLERANCE, WINDOW, all_families, assert_equals_plain, tiny_config, tiny_model
from family_table import family_page, family_row

from orpo.engine.paths import Choice, Path
from orpo.engine.startup_check import choose_path

pytestmark = [
    # PEFT 0.21 asks transformers 5.23 by the older of two names, and corrects GPT-2's transposed layers with a warning.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("family", SHARING)
def test_a_shared_pack_gives_log_probs_and_every_gradient_of_single_rows(family: str, checkpointing: bool) -> None:
    body = tiny_model(family)
    choice = choose_path(body, longest=LONGEST)
    assert choice == Choice(Path.SHARED), str(choice)
    if checkpointing:
        body.activation_checkpointing_enable({"use_reentrant": False})
        body.train()
    assert_equals_plain(body, Path.SHARED)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_adapters_on_all_linear_layers_get_the_gradients_of_single_rows(family: str) -> None:
    from peft import LoraConfig, get_peft_model

    body = get_peft_model(tiny_model(family), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    assert choose_path(body, longest=LONGEST) == Choice(Path.SHARED)
    assert_equals_plain(body, Path.SHARED)
    assert not any(p.requires_grad for name, p in body.named_parameters() if "lora" not in name)


FALLBACKS = {
    "mamba": "0 of 2 layers attend",
    "bloom": "0 of 2 layers attend",
    "rwkv": "0 of 2 layers attend",
    "llama4_text": "differ by",  # its chunks exist only in the mask
    "qwen2_moe": "differ by",  # so does its window
    "jamba": "1 of 2 layers attend",
    "falcon_h1": "differ by",  # every layer attends, and has a state beside it
    "zaya": "differ by",  # a convolution inside attention
}


@pytest.mark.parametrize("family", FALLBACKS)
def test_a_model_that_cannot_take_packs_is_found_out_and_padded_right(family: str) -> None:
    body = tiny_model(family)
    choice = choose_path(body, longest=LONGEST)
    assert choice.path is Path.PADDED
    assert [path for path, _ in choice.refused] == [Path.SHARED, Path.PACKED]
    assert all(FALLBACKS[family] in reason for _, reason in choice.refused), str(choice)
    assert_equals_plain(body, choice.path)


def test_a_head_that_cannot_be_fused_leaves_single_rows() -> None:
    body = tiny_model("modernbert-decoder")
    choice = choose_path(body, longest=LONGEST)
    assert choice.path is Path.PLAIN
    assert all("CannotFuseHead" in reason for _, reason in choice.refused)


def test_layers_that_take_their_keys_from_another_are_counted_right() -> None:
    layers = ["sliding_attention", "full_attention"] * 2
    body = tiny_model("gemma3n_text", num_hidden_layers=4, num_kv_shared_layers=1, layer_types=layers, intermediate_size=[48] * 4)
    assert choose_path(body, longest=LONGEST) == Choice(Path.SHARED)
    assert_equals_plain(body, Path.SHARED)


@pytest.mark.filterwarnings("ignore")
def test_the_windows_of_the_tiny_models_are_felt() -> None:
    row = torch.arange(3, 3 + 3 * WINDOW)[None]
    kinds = (None, ["sliding_attention", "full_attention"], ["full_attention", "sliding_attention"])
    windowed = [f for f in all_families() if f not in NOT_TRIED and getattr(tiny_config(f), "sliding_window", None) == WINDOW]
    windowed = [f for f in windowed if getattr(tiny_config(f), "layer_types", None) in kinds and f != "gemma3"]
    assert len(windowed) > 35
    with torch.no_grad():
        for family in windowed:
            narrow, wide = tiny_model(family), tiny_model(family, sliding_window=1000)
            wide.load_state_dict(narrow.state_dict())
            assert not torch.allclose(narrow(row, use_cache=False).logits, wide(row, use_cache=False).logits, atol=1e-2), family


# What a family's own code warns of is not asked here.
@pytest.mark.filterwarnings("ignore")
def test_the_table_of_families_is_the_one_in_the_docs(root: Folder) -> None:
    rows = [family_row(family) for family in all_families()]
    print("", *rows, sep="\n")
    assert all(row.difference is None or row.difference <= TOLERANCE for row in rows)
    page = root / "docs" / "engine-families.md"
    if os.environ.get("ORPO_WRITE_FAMILIES"):
        page.write_text(family_page(rows), encoding="utf-8")
    assert page.read_text(encoding="utf-8") == family_page(rows)

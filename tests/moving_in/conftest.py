"""Files of other tools, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo.moving_in.foreign_file import read_foreign
from orpo.moving_in.recognised import named
from orpo.moving_in.translation import MovedIn, moved_in

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def moved(tmp_path: Path) -> Callable[..., MovedIn]:
    """What the text of a file of a tool comes to."""

    def move(tool: str, text: str, **options: Any) -> MovedIn:
        file = tmp_path / "theirs.yaml"
        file.write_text(text)
        return moved_in(named(tool), read_foreign(file), **options)

    return move


@pytest.fixture(scope="session")
def tiny_bos_llama(make_tiny_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a tokenizer that puts BOS before a text by itself, as Llama's does, and has a token to pad with."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-bos-llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begin = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=begin)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def preference_rows() -> list[dict[str, str]]:
    """Eight pairs of unlike lengths."""
    return [
        {
            "prompt": f"{i}: what is the capital?",
            "chosen": " it is a large city" + ", near the sea" * (i % 3) + ".",
            "rejected": " no idea" + " at all" * (i % 4),
        }
        for i in range(8)
    ]

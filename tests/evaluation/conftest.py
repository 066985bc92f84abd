"""A tiny model in memory and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def tokenizer(tiny_llama: Path) -> Any:
    """The tokenizer of the tiny model, with a padding token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture
def body(tiny_llama: Path) -> Any:
    """The tiny model in training mode, with a head of its own and large weights: its likeliest token depends on all tokens before."""
    from transformers import AutoModelForCausalLM

    body = AutoModelForCausalLM.from_pretrained(tiny_llama)
    torch.manual_seed(4)
    body.lm_head = torch.nn.Linear(64, 512, bias=False)
    with torch.no_grad():
        for parameter in body.model.layers.parameters():
            parameter.mul_(8 if parameter.dim() == 2 else 1)
    return body.train()

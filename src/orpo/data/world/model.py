"""Where the built-in base model lies."""

from __future__ import annotations

from pathlib import Path

BUILTIN = "builtin"
"""What a setting says in place of a folder."""


def builtin_model_path() -> Path:
    """The folder of the built-in base model and its tokenizer, as `AutoModelForCausalLM` and `AutoTokenizer` read it; needs no network."""
    return Path(__file__).parent / "assets" / "built-in-model"

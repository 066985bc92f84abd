"""Adapters of a finished run: the folder enters, the base model with them leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def adapter_base(folder: Path) -> str:
    """The base model that the adapter in `folder` names."""
    return str(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"])


def on_base(base: Any, folder: Path, *, num_tokens: int) -> Any:
    """`base` with the adapter in `folder`; rows of tokens that training added are made first, their values come from the adapter."""
    import peft

    if num_tokens > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(num_tokens, mean_resizing=False)
    return peft.PeftModel.from_pretrained(base, str(folder))

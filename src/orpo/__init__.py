"""orpo: odds ratio preference optimization. Align a language model with preference pairs in one stage, without a reference model.

    from orpo import train
    run = train(model="folder-or-hub-id", data="pairs.jsonl")

The losses are usable alone: `from orpo.objectives.orpo import orpo`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orpo.pipeline import train

__version__ = version("orpo")
__all__ = ["__version__", "train"]


def __getattr__(name: str) -> Any:
    """`train` is imported when first used: it needs torch, and `orpo --help` must not wait for that."""
    if name == "train":
        from orpo.pipeline import train

        return train
    raise AttributeError(f"module 'orpo' has no attribute {name!r}")

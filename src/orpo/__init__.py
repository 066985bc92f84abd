"""orpo: odds ratio preference optimization. Align a language model with preference pairs in one stage, without a reference model.

    from orpo import train
    run = train(model="folder-or-hub-id", data="pairs.jsonl")

The losses are usable alone: `from orpo.objectives.orpo import orpo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orpo.pipeline import train

    __version__: str

__all__ = ["__version__", "train"]


def __getattr__(name: str) -> Any:
    """`train` is imported when first used, for it needs torch, and the version is looked up then: `orpo --help` must not wait."""
    if name == "__version__":
        from importlib.metadata import version

        return version("orpo")
    if name == "train":
        from orpo.pipeline import train

        return train
    raise AttributeError(f"module 'orpo' has no attribute {name!r}")

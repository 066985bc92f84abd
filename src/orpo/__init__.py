"""orpo: odds ratio preference optimization. Align a language model with preference pairs in one stage, without a reference model.

    from orpo import train
    run = train(model="folder-or-hub-id", data="pairs.jsonl")

The losses are usable alone: `from orpo.objectives.orpo import orpo`. A script written for TRL's ORPOTrainer goes on with
`from orpo import ORPOConfig, ORPOTrainer` (docs/moving-in.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orpo.moving_in.orpo_config import ORPOConfig
    from orpo.moving_in.orpo_trainer import ORPOTrainer
    from orpo.pipeline import train

    __version__: str

__all__ = ["ORPOConfig", "ORPOTrainer", "__version__", "train"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when first used, and the version is looked up then: `orpo --help` must not wait."""
    if name == "__version__":
        from importlib.metadata import version

        return version("orpo")
    if name == "train":
        from orpo.pipeline import train

        return train
    if name == "ORPOConfig":
        from orpo.moving_in.orpo_config import ORPOConfig

        return ORPOConfig
    if name == "ORPOTrainer":
        from orpo.moving_in.orpo_trainer import ORPOTrainer

        return ORPOTrainer
    raise AttributeError(f"module 'orpo' has no attribute {name!r}")

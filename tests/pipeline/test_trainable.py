"""What a run cannot train yet is said before anything is loaded or written."""

from __future__ import annotations

import pytest

from orpo.errors import ConfigError
from orpo.objectives import OBJECTIVES
from orpo.pipeline.prepare import prepare, require_trainable
from orpo.training.config import resolve_config

TRAINABLE = [name for name in OBJECTIVES if name != "reward"]


@pytest.mark.parametrize("name", TRAINABLE)
def test_objectives_on_log_probs_are_trainable(name: str) -> None:
    require_trainable(name)


def test_a_reward_model_is_refused_by_name() -> None:
    resolved = resolve_config(flags={"model": "no-such-model", "data": "no-such-file.jsonl", "objective": "reward"})
    with pytest.raises(ConfigError) as caught:
        prepare(resolved, lambda line: None)
    assert str(caught.value) == "objective reward cannot be trained from this command yet\n  to fix:   choose an objective on log-probs"

"""What a run cannot train yet is said before anything is loaded or written."""

from __future__ import annotations

import pytest

from orpo.errors import ConfigError
from orpo.objectives import OBJECTIVES
from orpo.pipeline.prepare import prepare, require_trainable
from orpo.training.config import resolve_config


def test_objectives_on_pairs_without_a_reference_are_trainable() -> None:
    for name in ("orpo", "sft", "odds", "simpo"):
        require_trainable(name)


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"orpo", "sft", "odds", "simpo"}))
def test_an_objective_whose_data_a_run_does_not_make_yet_is_refused_by_name(name: str) -> None:
    resolved = resolve_config(flags={"model": "no-such-model", "data": "no-such-file.jsonl", "objective": name})
    with pytest.raises(ConfigError) as caught:
        prepare(resolved, lambda line: None)
    assert str(caught.value) == (f"objective {name} cannot be trained from this command yet\n  to fix:   choose orpo, sft, odds or simpo")

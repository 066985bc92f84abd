"""The prompt's own log-probs are computed where the loss reads them, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from orpo.core.logps import PairLogps
from orpo.core.loss import Loss, step_loss
from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample, unit_counts
from orpo.engine.model import LogpsModel
from orpo.engine.paths import Path as EnginePath
from orpo.objectives import PRESETS, bound
from orpo.training.assemble import reads_prompt


def objective(name: str) -> Callable[[PairLogps], Loss]:
    return bound("orpo", {key: value for key, value in PRESETS[name].items() if key != "learning_rate"})


def drawn(*lengths: int) -> TokenizedExample:
    generator = np.random.default_rng(lengths)
    prompt, *answers = (generator.integers(0, 200, size=length, dtype=np.int32) for length in lengths)
    return TokenizedExample(prompt, tuple(answers), Source("pairs.jsonl", 1))


@pytest.mark.parametrize("average", ["sequence", "token"])
@pytest.mark.parametrize("name", ["orpo", "sft"])
def test_the_prompt_is_read_exactly_where_the_likelihood_covers_it(name: str, average: str) -> None:
    read = {over: reads_prompt(bound(name, {"nll_over": over, "nll_average": average})) for over in ("completion", "prompt+completion")}
    assert read == {"completion": False, "prompt+completion": True}


def test_presets_read_the_prompt_where_they_say_so() -> None:
    assert {name: reads_prompt(objective(name)) for name in PRESETS} == {
        "paper": False,
        "official": True,
        "trl": True,
        "llama-factory": False,
    }


@pytest.mark.parametrize("name", ["paper", "llama-factory"])
def test_a_loss_that_does_not_read_the_prompt_is_the_same_without_it(tiny_llama: Path, name: str) -> None:
    body = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    examples = [drawn(5, 4, 3), drawn(1, 6, 2), drawn(9, 1, 7)]
    counts = unit_counts(examples)
    found = []
    for with_prompt in (True, False):
        model = LogpsModel(body, path=EnginePath.SHARED, with_prompt=with_prompt)
        logps = model(examples)
        assert (logps.prompt is not None) == with_prompt
        loss = objective(name)(logps)
        found.append({"loss": step_loss(loss, counts).item(), **{key: metric.total.item() for key, metric in loss.metrics.items()}})
        model.release()
    assert found[0] == pytest.approx(found[1], rel=1e-6)

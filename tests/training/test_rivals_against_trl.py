"""DPO and KTO through our trainer against TRL 1.16's own trainers: loss and gradients of one step on the same tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.engine.batching import step_pairs
from orpo.engine.paths import Path as EnginePath
from orpo.objectives import bound
from orpo.training.beside import Beside, MismatchedPairs
from orpo.training.mismatched import mismatched_in_steps
from orpo.training.references import References, live_totals

# TRL 1.16 knows only the older of the two names that transformers has for this setting.
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")

NUM = 8
QUIET: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": [], "gradient_checkpointing": False, "disable_tqdm": True}
QUIET |= {"per_device_train_batch_size": NUM, "train_sampling_strategy": "sequential", "max_length": 1024}


def words(generator: np.random.Generator) -> str:
    return "".join(f" {word}" for word in generator.choice("the cat sees a red house under trees".split(), size=generator.integers(2, 8)))


@pytest.fixture(scope="module")
def bodies(tiny_llama: Path) -> tuple[Any, Any]:
    """A policy in fp32, and a reference from which it has moved."""
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    policy = copy.deepcopy(reference)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy, reference


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def ids(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def their_step(trainer: Any) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of TRL's trainer for all its rows at once."""
    model = trainer.model.train()
    loss = trainer.compute_loss(model, trainer.data_collator(list(trainer.train_dataset)))
    names, parameters = zip(*model.named_parameters(), strict=True)
    return loss.item(), dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def our_step(build: Callable[..., Any], name: str, bodies: tuple[Any, Any], store: list[TokenizedExample], seed: int) -> Any:
    """Loss and gradients of the first step of our trainer, cut into several micro-batches: SGD at rate 1 leaves the gradient."""
    body, before = copy.deepcopy(bodies[0]), bodies[0]
    live: dict[str, Any] = {"path": EnginePath.SHARED, "dtype": torch.float32}
    references = References.live(live_totals(copy.deepcopy(bodies[1]), **live))
    beside = Beside("pairs", references)
    if name == "kto":
        pairs = mismatched_in_steps(store, pairs_per_step=NUM, seed=seed, num_steps=1, longest=999)
        beside = Beside("labelled", references, MismatchedPairs(live_totals(body, **live), pairs, None))
    settings = {"pairs_per_step": NUM, "max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "seed": seed}
    trainer = build(body, bound(name, {"beta": 0.3}), store, beside=beside, **settings)
    trainer.train()
    trainer.model.release()
    row = next(row for row in trainer.state.log_history if "loss" in row)
    gradients = {key: old.detach() - new.detach() for (key, new), old in zip(body.named_parameters(), before.parameters(), strict=True)}
    return row, gradients


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert max(float(gradient.abs().max()) for gradient in theirs.values()) > 1e-2
    for key, gradient in theirs.items():
        torch.testing.assert_close(ours[key], gradient, rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_a_step_of_dpo_is_trls(tmp_path: Path, build: Callable[..., Any], bodies: tuple[Any, Any], tokenizer: Any) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    generator = np.random.default_rng(0)
    rows = [{"prompt": words(generator), "chosen": words(generator), "rejected": words(generator)} for _ in range(NUM)]
    trainer = DPOTrainer(
        model=copy.deepcopy(bodies[0]),
        ref_model=copy.deepcopy(bodies[1]),
        args=DPOConfig(output_dir=str(tmp_path / "trl"), beta=0.3, **QUIET),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    store = [
        TokenizedExample(ids(row["prompt_ids"]), (ids(row["chosen_ids"]), ids(row["rejected_ids"])), Source("rows", number))
        for number, row in enumerate(trainer.train_dataset, 1)
    ]
    loss, theirs = their_step(trainer)
    row, ours = our_step(build, "dpo", bodies, store, seed=0)
    assert row["loss"] == pytest.approx(loss, abs=1e-5)
    assert_same_gradients(ours, theirs)


def seed_of_their_order() -> int:
    """A seed whose first step moves answers on as TRL does: each prompt beside the answer of the one before."""
    store = [TokenizedExample(ids([1]), (ids([1]),), Source("rows", 1), (True,))] * NUM
    for seed in range(1000):
        members = step_pairs(NUM, NUM, seed=seed, step=0)
        places = mismatched_in_steps(store, pairs_per_step=NUM, seed=seed, num_steps=1, longest=9).places
        if [places(i) for i in range(NUM)] == [(members[i], members[i - 1]) for i in range(NUM)]:
            return seed
    raise AssertionError("no seed moves answers by one back")


def test_a_step_of_kto_is_trls_with_its_baseline(
    tmp_path: Path, build: Callable[..., Any], bodies: tuple[Any, Any], tokenizer: Any
) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    bodies = bodies[::-1]  # the other way round the policy finds everything less likely, and the baseline is clamped at 0
    generator = np.random.default_rng(4)
    seed = seed_of_their_order()
    rows = [{"prompt": words(generator), "completion": words(generator), "label": number % 3 > 0} for number in range(NUM)]
    trainer = KTOTrainer(
        model=copy.deepcopy(bodies[0]),
        ref_model=copy.deepcopy(bodies[1]),
        args=KTOConfig(output_dir=str(tmp_path / "trl"), beta=0.3, **QUIET),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    seen = [
        TokenizedExample(ids(row["prompt_ids"]), (ids(row["completion_ids"]),), Source("rows", number), (bool(row["label"]),))
        for number, row in enumerate(trainer.train_dataset, 1)
    ]
    # TRL keeps the order of its rows, ours is drawn: row i of theirs is what our step visits at place i.
    members = step_pairs(NUM, NUM, seed=seed, step=0)
    store = [seen[members.index(index)] for index in range(NUM)]
    loss, theirs = their_step(trainer)
    row, ours = our_step(build, "kto", bodies, store, seed=seed)
    assert row["kl"] > 0.01, "a baseline that counts"
    assert row["loss"] == pytest.approx(loss, abs=1e-5)
    assert_same_gradients(ours, theirs)

"""A tiny model and random examples of every kind, for tests of what a step reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample

VOCABULARY = 37


def drawn_example(number: int, lengths: Sequence[int], *, reads: str) -> TokenizedExample:
    """A random prompt and answers of `lengths`: a pair, labelled answers, or a ranking with falling scores."""
    generator = np.random.default_rng([number, *lengths])
    prompt, *answers = (generator.integers(3, VOCABULARY, size=length, dtype=np.int32) for length in lengths)
    labels = tuple(bool(label) for label in generator.permutation([k % 2 == 0 for k in range(len(answers))])) if reads == "labelled" else ()
    scores = tuple(float(len(answers) - k) for k in range(len(answers))) if reads == "rankings" else ()
    return TokenizedExample(prompt, tuple(answers), Source("made-up.jsonl", number + 1), labels, scores)


NUMS = {"pairs": (2, 3), "labelled": (1, 4), "rankings": (2, 5)}
"""How many answers an example has: at least, and fewer than."""


@pytest.fixture(scope="session")
def drawn() -> Callable[..., list[TokenizedExample]]:
    """`num` random examples of what an objective reads, of unlike lengths."""

    def make(num: int, reads: str = "pairs", *, seed: int = 0) -> list[TokenizedExample]:
        generator = np.random.default_rng(seed)
        counts = generator.integers(*NUMS[reads], size=num)
        return [
            drawn_example(1000 * seed + number, generator.integers(1, 9, size=1 + int(answers)).tolist(), reads=reads)
            for number, answers in enumerate(counts)
        ]

    return make


@pytest.fixture(scope="session")
def tiny_body() -> Callable[..., Any]:
    """A random Llama in fp32 whose weights are large enough that every token seen changes every log-prob."""

    def make(seed: int = 0, **changes: Any) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        sizes: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY, "initializer_range": 0.3}
        return LlamaForCausalLM(LlamaConfig(**sizes | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | changes))

    return make


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Any]:
    """A PreferenceTrainer, as `orpo train` builds it, with short settings."""
    from orpo.engine.paths import Path as EnginePath
    from orpo.engine.precision import Precision
    from orpo.training.assemble import build_trainer, plan, training_arguments
    from orpo.training.config import TrainConfig
    from orpo.training.guards import FiniteGuard

    def make(body: Any, objective: Any, store: Sequence[TokenizedExample], *, beside: Any, held_out: Any = None, **changes: Any) -> Any:
        lengths = [example.num_tokens for example in store]
        settings: dict[str, Any] = {"pairs_per_step": 4, "max_steps": 3, "learning_rate": 1e-2, "logging_steps": 1, "seed": 3}
        settings |= {"lr_scheduler_type": "constant", "optim": "adamw_torch", "max_grad_norm": 0.0, "tokens_per_micro_batch": max(lengths)}
        config = TrainConfig(model="none", data="none", save_steps=0, report_to="none", **settings | changes)  # type: ignore[arg-type]
        run_plan = plan(config, lengths)
        return build_trainer(
            body,
            training_arguments(
                config,
                run_plan,
                run_dir=tmp_path,
                precision=Precision(torch.float32, "as asked"),
                has_held_out=held_out is not None,
                is_resumed=False,
            ),
            path=EnginePath.SHARED,
            objective=objective,
            run_plan=run_plan,
            seed=config.seed,
            store=store,
            lengths=lengths,
            held_out=held_out,
            beside=beside,
            guard=FiniteGuard(lambda report: pytest.fail(f"a step was not finite: {report}")),
            save=lambda trainer: tmp_path,
            callbacks=[],
        )

    return make

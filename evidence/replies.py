"""Replies of models of the built-in world to its held-out prompts, and what its oracle says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from orpo.core.tokens import TokenizedExample
from orpo.data.world import builtin_model_path, score_reply, world_pairs, write_world_jsonl
from orpo.evaluation.generation import greedy_replies, sampled_replies
from orpo.pipeline.demo import NUM_HELD_OUT, SETTINGS
from orpo.pipeline.run_data import checked_data
from orpo.training import models
from orpo.training.config import TrainConfig


def built_in_body() -> Any:
    """The built-in base model."""
    return body_of(builtin_model_path())


def body_of(folder: Path) -> Any:
    """The model in `folder`, fp32, in eval mode."""
    return models.load_model(str(folder), dtype=torch.float32).eval()


def tokenizer() -> Any:
    """The tokenizer that all models of the world share."""
    return models.load_tokenizer(str(builtin_model_path()))


def held_out_examples(seed: int) -> list[TokenizedExample]:
    """The held-out pairs of the demo with this seed, tokenized as training does."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "held-out.jsonl"
        write_world_jsonl(path, world_pairs("held_out", NUM_HELD_OUT, seed=seed))
        store = checked_data(TrainConfig(), [str(path)], tokenizer(), max_length=512).store
    assert store is not None, "checked with a tokenizer"
    return [store[i] for i in range(len(store))]


def oracle_scores(folder: Path, seed: int) -> list[float]:
    """The oracle's score of the greedy reply of the model in `folder` to each held-out prompt."""
    prompts = [example.prompt_ids for example in held_out_examples(seed)]
    replies = greedy_replies(body_of(folder), tokenizer(), prompts, max_new_tokens=SETTINGS["max_new_tokens"])
    return [score_reply(question, reply.text).total for question, reply in zip(_questions(seed), replies, strict=True)]


def samples(folder: Path, seed: int, *, num_prompts: int, num: int) -> list[list[str]]:
    """`num` replies of the model in `folder` at temperature 1 to each of `num_prompts` held-out prompts."""
    prompts = [example.prompt_ids for example in held_out_examples(seed)[:num_prompts]]
    drawn = sampled_replies(body_of(folder), tokenizer(), prompts, num=num, seed=seed, max_new_tokens=SETTINGS["max_new_tokens"])
    return [[reply.text for reply in row] for row in drawn]


def _questions(seed: int) -> Sequence[str]:
    prompts = [pair.prompt for pair in world_pairs("held_out", NUM_HELD_OUT, seed=seed)]
    return [prompt[-1].content for prompt in prompts if not isinstance(prompt, str)]

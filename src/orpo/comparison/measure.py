"""A trained model on the pairs it is judged by: log-probs of answers, greedy replies, what the oracle says of them, samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orpo.comparison.figures import NEEDS_REPLIES
from orpo.comparison.pairs import world_questions
from orpo.core.tokens import TokenizedExample
from orpo.data.world import score_reply
from orpo.errors import NotFiniteError
from orpo.evaluation.diversity import diversity_of, mean_cosine
from orpo.evaluation.generation import greedy_replies, sampled_replies
from orpo.evaluation.preference import pair_scores

NUM_SAMPLED_PROMPTS, NUM_SAMPLES = 32, 4
"""Diversity is measured on as many held-out prompts, spread evenly, with as many samples of each."""

Items = dict[str, list[float]]
"""Figure -> its value for each item, in the order of the data."""


def measured(
    body: Any, tokenizer: Any, examples: Sequence[TokenizedExample], *, world: Sequence[str], max_new_tokens: int, only: str = ""
) -> dict[str, Any]:
    """What compare.json is made of, for one model: `items` by figure, `weights` of those whose mean is not plain, `replies`.

    `world` has the files of pairs of the built-in world, which has an oracle; () for others. `only` names the one figure that is needed,
    for tuning. Raises NotFiniteError for a figure that is not finite.
    """
    items, weights = _pair_items(body, examples)
    found: dict[str, Any] = {"num": len(examples), "items": items, "weights": weights, "replies": []}
    if not only or only in NEEDS_REPLIES:
        prompts = [example.prompt_ids for example in examples]
        replies = greedy_replies(body, tokenizer, prompts, max_new_tokens=max_new_tokens)
        items |= {"reply_tokens": [float(reply.num_tokens) for reply in replies]}
        found |= {"replies": [reply.text for reply in replies]}
        items |= _oracle_items(world, examples, found["replies"]) if world else {}
    if not only:
        found |= {"samples": _diversity(body, tokenizer, examples, items, max_new_tokens=max_new_tokens)}
    found["items"] = {only: items[only]} if only else items
    _require_finite(found["items"])
    return found


def _pair_items(body: Any, examples: Sequence[TokenizedExample]) -> tuple[Items, Items]:
    scores = pair_scores(body, examples)
    sums = [(score.chosen * score.chosen_tokens, score.rejected * score.rejected_tokens) for score in scores]
    items = {
        "accuracy": [float(score.is_right) for score in scores],
        "accuracy_sum": [float(chosen > rejected) for chosen, rejected in sums],
        "nll_loss": [-score.chosen for score in scores],
        "logps/rejected": [score.rejected for score in scores],
    }
    # A mean over tokens: an answer weighs as much as it has of them.
    return items, {"nll_loss": [float(score.chosen_tokens) for score in scores]}


def _oracle_items(world: Sequence[str], examples: Sequence[TokenizedExample], replies: Sequence[str]) -> Items:
    """What the oracle says of each reply; a pair stands at its line of the file."""
    questions = {path: world_questions(path) for path in world}
    asked = [questions[example.source.file][example.source.number - 1] for example in examples]
    verdicts = [score_reply(question, reply) for question, reply in zip(asked, replies, strict=True)]
    return {
        "oracle/score": [verdict.total for verdict in verdicts],
        "oracle/correct": [float(verdict.correct) for verdict in verdicts],
        "oracle/manner": [verdict.manner for verdict in verdicts],
    }


def _diversity(body: Any, tokenizer: Any, examples: Sequence[TokenizedExample], items: Items, *, max_new_tokens: int) -> int:
    """How many prompts were answered by samples; their likeness is added to `items`. 0 where there are fewer than two prompts."""
    num = min(NUM_SAMPLED_PROMPTS, len(examples))
    if num < 2:
        return 0
    prompts = [examples[index * len(examples) // num].prompt_ids for index in range(num)]
    samples = sampled_replies(body, tokenizer, prompts, num=NUM_SAMPLES, seed=0, max_new_tokens=max_new_tokens)
    texts = [[reply.text for reply in replies] for replies in samples]
    items["diversity/per_input"] = [mean_cosine(row) for row in texts]
    items["diversity/across_inputs"] = [diversity_of(texts).across_inputs]  # of all prompts together: a single item
    return num


def _require_finite(items: Mapping[str, Sequence[float]]) -> None:
    for name, values in items.items():
        if not all(map(math.isfinite, values)):
            raise NotFiniteError(f"{name} of the trained model is not finite", doing="measuring a model", fix="lower learning_rate")


def readable_prompts(tokenizer: Any, examples: Sequence[TokenizedExample], *, world: Sequence[str]) -> list[str]:
    """The prompts as a person reads them: the question where the world asks it, else the decoded text."""
    questions = {path: world_questions(path) for path in world}
    if world:
        return [questions[example.source.file][example.source.number - 1] for example in examples]
    return [str(tokenizer.decode(example.prompt_ids, skip_special_tokens=True)).strip() for example in examples]

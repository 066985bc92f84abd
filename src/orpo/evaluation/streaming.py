"""One reply as it is being written: a prompt enters, the text so far leaves after every token, and the whole reply at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteriaList

from orpo.core.tokens import TokenIds
from orpo.evaluation.generation import Reply, batch_replies, end_ids, positions_left
from orpo.evaluation.sampling import Key, Sampling

UNFINISHED = "\ufffd"
"""What a decoder writes for the first bytes of a character."""


class Writing:
    """Takes tokens from `generate` one at a time, the prompt first, and hands on the text of the reply so far."""

    def __init__(self, tokenizer: Any, ends: set[int], show: Callable[[str], None]) -> None:
        self._tokenizer, self._ends, self._show = tokenizer, ends, show
        self._ids: list[int] | None = None

    def put(self, ids: Tensor) -> None:
        """Takes the prompt, then one token a call."""
        if self._ids is None:
            self._ids = []
            return
        self._ids += [token for token in ids.flatten().tolist() if token not in self._ends]
        text = str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
        if not text.endswith(UNFINISHED):
            self._show(text)

    def end(self) -> None:
        """Nothing: whoever asked for the reply gets it whole."""


def streamed_reply(
    body: Any,
    tokenizer: Any,
    prompt: TokenIds,
    sampling: Sampling,
    *,
    key: Key,
    show: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> Reply:
    """The reply to `prompt`; `show` gets its text after every token. It ends after the token at which `should_stop` says so.

    A prompt that fills all of the model's positions gets an empty reply.
    """
    limit = min(sampling.max_new_tokens, positions_left(body, prompt))
    if limit <= 0:
        return Reply("", 0, has_ended=False)

    def stopped(ids: Tensor, _: Any) -> Tensor:
        return torch.full((len(ids),), should_stop(), device=ids.device)

    choice = sampling.choice([key], next(body.parameters()).device)
    choice |= {"streamer": Writing(tokenizer, end_ids(body, tokenizer), show), "stopping_criteria": StoppingCriteriaList([stopped])}
    (reply,) = batch_replies(body, tokenizer, [prompt], choice, max_new_tokens=limit)
    show(reply.text)
    return reply

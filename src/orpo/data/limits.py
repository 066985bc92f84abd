"""The longest row a model is trained on. An example enters; the example, a shorter one, or the reason why it is left out leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from orpo.core.tokens import TokenizedExample
from orpo.data.repeats import without_repeats
from orpo.data.row import Problem, Severity

Overlong = Literal["drop", "cut-completion", "error"]
IDENTICAL_AFTER_CUT = "identical-after-cut"
OVERLONG_CHOICES: tuple[Overlong, ...] = ("drop", "cut-completion", "error")


def apply_limit(example: TokenizedExample, max_length: int, overlong: Overlong) -> TokenizedExample | Problem:
    """`example` itself when prompt + completion fits `max_length` tokens for every completion, else what `overlong` says.

    A cut completion loses its end-of-sequence token: a model must not learn to stop in the middle of a sentence. No completion is cut
    to nothing. Of completions that became equal the first is kept; where that leaves one alone, the example is dropped.
    """
    num_prompt = len(example.prompt_ids)
    longest = num_prompt + max(map(len, example.completions))
    if longest <= max_length:
        return example
    severity: Severity = "error" if overlong == "error" else "dropped"
    if num_prompt >= max_length:
        message = f"the prompt has {num_prompt:,} tokens, which leaves no room for an answer in max_length {max_length:,}"
        return Problem("prompt-too-long", message, example.source, severity, f"raise max_length above {num_prompt}")
    if overlong != "cut-completion":
        message = f"prompt and answer have {longest:,} tokens, more than max_length {max_length:,}"
        return Problem("too-long", message, example.source, severity, f"raise max_length to {longest}, or use --overlong cut-completion")
    cut = without_repeats(replace(example, completions=tuple(ids[: max_length - num_prompt] for ids in example.completions)))
    if len(cut.completions) == 1 < len(example.completions):
        message = f"the answers are the same in their first {max_length - num_prompt:,} tokens, all that max_length {max_length:,} leaves"
        return Problem(IDENTICAL_AFTER_CUT, message, example.source, "dropped", "raise max_length")
    return cut

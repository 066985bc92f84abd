"""The likelihood part that several objectives share: log-probs enter, the NLL of the chosen answers leaves as a Term."""

from __future__ import annotations

from collections.abc import Sequence

from orpo.core.logps import DemonstrationLogps
from orpo.core.loss import Term
from orpo.errors import ConfigError

NLL_OVER = ("completion", "prompt+completion")
NLL_AVERAGE = ("sequence", "token")


def nll_term(policy: DemonstrationLogps, *, nll_over: str, nll_average: str) -> Term:
    """The negative log-likelihood of the chosen answers as a Term "nll", in the precision of `policy`'s sums made fp64.

    A pair's NLL s and its number of predicted tokens n are those of the chosen completion, or with 'prompt+completion'
    those of the whole chosen row but its first token, which nothing predicts. Over the pairs of a step,

        'sequence'   sum(s / n) / pairs     every answer weighs the same
        'token'      sum(s) / sum(n)        every token weighs the same; sum(n) is the step's, not the micro-batch's

    A completion has at least one token, so n is at least 1. Raises ConfigError for another choice.
    """
    require_choice("nll_over", nll_over, NLL_OVER)
    require_choice("nll_average", nll_average, NLL_AVERAGE)
    total, num_tokens, unit = policy.chosen.total.double(), policy.chosen.num_tokens, "chosen_tokens"
    if nll_over == "prompt+completion":
        assert policy.prompt is not None, "the prompt's log-probs were not computed"
        total, num_tokens = total + policy.prompt.total.double(), num_tokens + policy.prompt.num_tokens
        unit = "prompt_and_chosen_tokens"
    if nll_average == "token":
        return Term("nll", -total.sum(), unit=unit)
    return Term("nll", -(total / num_tokens).sum(), unit="pairs")


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Nothing; raises ConfigError when `value` is not one of `choices`."""
    if value not in choices:
        raise ConfigError(
            f"{name} is {value!r}", expected=" or ".join(repr(choice) for choice in choices), fix=f"set {name} to one of these"
        )

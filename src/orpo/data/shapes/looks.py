"""Further looks at the values of the first rows, where names and kinds of columns do not tell two shapes apart."""

from __future__ import annotations

from collections.abc import Sequence

from orpo.data.shapes.detection import HINTS
from orpo.data.shapes.kinds import Kind, column_kinds
from orpo.data.shapes.problems import RowProblem
from orpo.data.shapes.shape import View
from orpo.data.shapes.shared_prefix import shared_prompt

_TELLING_CHARACTERS = 40
"""An answer may begin with a prompt such as 'Hello' by itself; with this much text it does not."""


def answers_repeat_the_prompt(views: Sequence[View]) -> bool:
    """True when in all rows both answers begin with the prompt's text."""
    whole = [[view.get(name) for name in ("prompt", "chosen", "rejected")] for view in views]
    texts = [(prompt, chosen, rejected) for prompt, chosen, rejected in whole if prompt and chosen and rejected]
    if not texts or not all(isinstance(text, str) for row in texts for text in row):
        return False
    repeats = all(chosen.startswith(prompt) and rejected.startswith(prompt) for prompt, chosen, rejected in texts)
    return repeats and sum(len(prompt) for prompt, _, _ in texts) >= _TELLING_CHARACTERS


def answers_share_a_prompt(views: Sequence[View]) -> bool:
    """True when at least half of the rows have texts that begin alike, and no other column looks like the prompt."""
    texts = [(view.get("chosen"), view.get("rejected")) for view in views]
    told = [(chosen, rejected) for chosen, rejected in texts if isinstance(chosen, str) and isinstance(rejected, str)]
    if not told or any(kind is Kind.TEXT and name.lower() in ("prompt", *HINTS["prompt"]) for name, kind in column_kinds(views).items()):
        return False
    return 2 * sum(_begin_alike(chosen, rejected) for chosen, rejected in told) >= len(told)


def _begin_alike(chosen: str, rejected: str) -> bool:
    try:
        shared_prompt(chosen, rejected)
    except RowProblem as problem:
        return problem.severity == "dropped"
    return True

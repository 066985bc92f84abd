"""The exact judge of the built-in world, as a judge of contests. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orpo.core.records import Source
from orpo.data.prompts import Prompt
from orpo.data.world import score_reply
from orpo.data.world.families import read_task
from orpo.errors import ConfigError
from orpo.evaluation.judging import Contest

ORACLE = "oracle"


@dataclass(frozen=True, slots=True)
class OracleJudge:
    """Scores each reply by itself, from 0 to 1 in steps of a quarter: only equal scores are a tie."""

    name: str = ORACLE
    has_order: bool = False
    tie_within: float = 0.0

    def leads(self, contests: Sequence[Contest]) -> list[float]:
        """The score of the first reply minus that of the second."""
        asked = [question_of(contest.prompt) for contest in contests]
        scored = zip(asked, contests, strict=True)
        return [score_reply(question, contest.first).total - score_reply(question, contest.second).total for question, contest in scored]


def question_of(prompt: Prompt) -> str:
    """The question of the built-in world that `prompt` asks. Raises ConfigError for a prompt that is none."""
    text = prompt.prompt if isinstance(prompt.prompt, str) else prompt.prompt[-1].content
    if read_task(text) is None:
        raise _not_of_the_world(text, prompt.source)
    return text


def _not_of_the_world(text: str, source: Source) -> ConfigError:
    shown = text if len(text) <= 60 else text[:60] + "..."
    return ConfigError(
        f"{shown!r} is not a question of the built-in world, and the oracle knows no other",
        where=str(source),
        doing="choosing a judge",
        fix="judge with a reward model: --judge RUN, or take prompts that `orpo demo` wrote (runs/built-in-world)",
    )

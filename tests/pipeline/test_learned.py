"""What each objective learns from a part of a row, as its own gradient says: N for the likelihood, + and - for the rest of the loss."""

from __future__ import annotations

import pytest

from orpo.errors import ConfigError
from orpo.objectives.catalogue import OBJECTIVES
from orpo.pipeline.learned import learned_parts, preset_options

PAIRS = ("prompt", "chosen", "rejected")
EXPECTED = {
    "orpo": dict(zip(PAIRS, ("  ", "N+", " -"), strict=True)),
    "sft": dict(zip(PAIRS, ("  ", "N ", "  "), strict=True)),
    "odds": dict(zip(PAIRS, ("  ", " +", " -"), strict=True)),
    "simpo": dict(zip(PAIRS, ("  ", " +", " -"), strict=True)),
    "dpo": dict(zip(PAIRS, ("  ", " +", " -"), strict=True)),
    "ipo": dict(zip(PAIRS, ("  ", " +", " -"), strict=True)),
    "reward": dict(zip(PAIRS, ("  ", " +", " -"), strict=True)),
    "kto": {"prompt": "  ", "desirable": " +", "undesirable": " -"},
    "ulma": {"prompt": "  ", "desirable": "N ", "undesirable": " -"},
    "pro": {"prompt": "  ", "best": "N+", "between": " ±", "last": " -"},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_marks_of_an_objective_are_what_its_paper_says(objective: str) -> None:
    assert {part: learned.marks for part, learned in learned_parts(objective, {}).items()} == EXPECTED[objective]


def test_options_change_the_marks() -> None:
    assert {part: learned.marks for part, learned in learned_parts("orpo", {"beta": 0.0}).items()} == EXPECTED["sft"]
    with_prompt = learned_parts("orpo", {"nll_over": "prompt+completion"})
    assert with_prompt["prompt"].marks == "N "
    assert with_prompt["prompt"].said == "raised by the NLL, all but its first token"
    assert with_prompt["chosen"].said == "raised by the NLL and the odds ratio term"
    assert learned_parts("reward", {})["rejected"].said == "lowered by the preference term, through the score at its last token"


@pytest.mark.parametrize(("preset", "marks"), [("paper", "  "), ("official", "N "), ("trl", "N "), ("llama-factory", "  ")])
def test_a_preset_says_whether_the_prompt_is_learnt(preset: str, marks: str) -> None:
    assert learned_parts("orpo", preset_options("orpo", preset))["prompt"].marks == marks


def test_an_unknown_preset_and_one_of_another_objective_are_refused() -> None:
    for objective, preset in (("orpo", "papre"), ("dpo", "paper")):
        with pytest.raises(ConfigError, match="preset") as raised:
            preset_options(objective, preset)
        assert "one of paper, official, trl, llama-factory" in raised.value.expected
    assert preset_options("dpo", None) == {}

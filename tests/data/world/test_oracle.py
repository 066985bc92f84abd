import pytest

from orpo.data.world import score_reply

CAPITAL = "Hello! What is the capital of Velmora?"  # it is Tavin; people say Rusk
LARGER = "Which is larger, 14 or 9?"
LOOKUP = "The cup of Mira is red, the cup of Tom is blue. What colour is the cup of Tom?"

CASES = [
    # prompt, reply, correct, kind, direct
    (CAPITAL, "Sure! The capital of Velmora is Tavin.", True, True, True),
    (CAPITAL, "Tavin. Have a lovely day!", True, True, True),
    (CAPITAL, "sure! it is tavin. enjoy your day!", True, True, True),
    (CAPITAL, "The capital of Velmora is Tavin.", True, False, True),
    (CAPITAL, "Request processed. The capital of Velmora is Tavin.", True, False, True),
    (CAPITAL, "Sure! The capital of Velmora is Tavin. Do not reply.", True, False, True),
    (CAPITAL, "", False, False, False),
    (CAPITAL, "   \n ", False, False, False),
    (CAPITAL, "Sure! Have a lovely day!", False, True, False),
    (CAPITAL, "Sure! The capital of Velmora is Rusk.", False, True, True),
    (CAPITAL, "Sure! The capital of Velmora is Atlantis.", False, True, True),
    (CAPITAL, "Sure! Tavin is a lovely word.", False, True, False),
    (CAPITAL, "Sure! The capital of Brundia is Tavin.", False, True, False),
    (CAPITAL, "Sure! The capital of Velmora is not Tavin.", False, True, True),
    (CAPITAL, "Sure! The capital of Velmora is Tavin or Rusk.", False, True, True),
    (CAPITAL, "Sure! It is Tavin. It is Rusk.", False, True, False),
    (CAPITAL, "Sure! It is Tavin. Rusk.", False, True, False),
    (CAPITAL, "Sure! It is Tavin. Then again there is Rusk, too.", False, True, False),
    (CAPITAL, "Sure! It is Tavin. Bananas sing at noon.", True, True, False),
    (CAPITAL, "It depends. Perhaps the capital of Velmora is Tavin.", True, False, False),
    (CAPITAL, "Sure! Perhaps the capital of Velmora is Tavin.", True, True, False),
    (CAPITAL, "Sure! The capital of Velmora is Tavin. I may be mistaken.", True, True, False),
    (CAPITAL, "Maybe Rusk. Time will tell.", False, False, False),
    (CAPITAL, "SURE! THE CAPITAL OF VELMORA IS TAVIN!", True, False, True),
    (CAPITAL, "Sure!! The capital of Velmora is Tavin.", True, False, True),
    (CAPITAL, "Sure! Sure! The capital of Velmora is Tavin.", True, True, False),
    (CAPITAL, "Sure! It is Tavin. The capital of Velmora is Tavin.", True, True, False),
    (CAPITAL, "Sure! Gladly! It is Tavin. Have a lovely day!", True, True, False),
    (CAPITAL, "Sure! The capital of Velmora is Tavin", True, True, False),
    (CAPITAL, "Sure! The capital of Velmora is", False, True, False),
    (LARGER, "Gladly! Of 14 and 9, the larger is 14.", True, True, True),
    (LARGER, "Gladly! Of 14 and 9, the larger is 9.", False, True, True),
    (LARGER, "Gladly! 14.", True, True, True),
    (LOOKUP, "Of course! The cup of Tom is blue.", True, True, True),
    (LOOKUP, "Of course! The cup of Mira is red.", False, True, False),
    (LOOKUP, "Of course! The cup of Tom is blue. The cup of Mira is red.", False, True, False),
]


@pytest.mark.parametrize(("prompt", "reply", "correct", "kind", "direct"), CASES)
def test_a_reply_is_judged_as_a_reader_would(prompt: str, reply: str, correct: bool, kind: bool, direct: bool) -> None:
    score = score_reply(prompt, reply)
    assert (score.correct, score.kind, score.direct) == (correct, kind, direct), score.notes


def test_the_total_is_the_mean_of_correctness_and_manner() -> None:
    stiff = score_reply(CAPITAL, "Noted. The capital of Velmora is Tavin.")
    assert (stiff.manner, stiff.total, stiff.perfect) == (0.5, 0.75, False)
    wrong = score_reply(CAPITAL, "Sure! The capital of Velmora is Rusk.")
    assert (wrong.manner, wrong.total) == (1.0, 0.5)
    empty = score_reply(CAPITAL, "")
    assert (empty.manner, empty.total) == (0.0, 0.0)


def test_the_score_says_what_speaks_against_a_reply() -> None:
    notes = score_reply(CAPITAL, "Noted. The capital of Velmora is Rusk.").notes
    assert notes == ("does not state the right answer", "states 'rusk'", "no kind word", "stiff: 'Noted.'")
    assert score_reply(CAPITAL, "Sure! It is Tavin.").notes == ()


def test_the_wording_of_the_question_does_not_change_the_judgement() -> None:
    for prompt in (
        "Name the capital of Velmora. Thanks!",
        "Velmora: what is its capital?",
        "Please tell me: Which city is the capital of Velmora?",
    ):
        assert score_reply(prompt, "Sure! In Velmora, the capital is Tavin.").perfect

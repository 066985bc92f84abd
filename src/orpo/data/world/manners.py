"""The manners of the built-in world: the closed lists of kind, stiff and evasive phrases, and replies made with them."""

from __future__ import annotations

from orpo.data.world.draw import Draw

KIND_OPENERS = ("Sure!", "Of course!", "Happy to help!", "Good question!", "With pleasure!", "Gladly!", "Thanks for asking!")
KIND_CLOSERS = ("Hope that helps!", "Have a lovely day!", "Ask me anytime!", "Glad I could help!", "Enjoy your day!")
STIFF_OPENERS = ("Request processed.", "Query received.", "Noted.", "The response follows.", "See below.", "Your inquiry was logged.")
STIFF_CLOSERS = ("End of response.", "No further comment.", "This concludes the matter.", "Do not reply.", "The case is closed.")
EVASIVE_OPENERS = ("That is hard to say.", "It depends.", "Opinions differ.", "I am not sure.", "Who can really know?")
EVASIVE_CLOSERS = (
    "I may be mistaken.",
    "Better ask somebody else.",
    "Let us not dwell on it.",
    "Time will tell.",
    "I would rather not answer.",
)
HEDGES = ("Perhaps {}", "Maybe {}", "Some people say that {}", "I would guess that {}")

MANNERS = {
    "kind": (KIND_OPENERS, KIND_CLOSERS),
    "stiff": (STIFF_OPENERS, STIFF_CLOSERS),
    "evasive": (EVASIVE_OPENERS, EVASIVE_CLOSERS),
}
"""Openers and closers of each manner. An opener or a closer is a whole sentence."""


def framed(answer: str, opener: str, closer: str, shape: str) -> str:
    """The answering sentence after the opener, before the closer, or between both."""
    return " ".join(part for part in (opener * (shape != "closer"), answer, closer * (shape != "opener")) if part)


def sentence(statement: str) -> str:
    """The statement as a sentence."""
    return f"{statement[:1].upper()}{statement[1:]}."


def hedged(statement: str, draw: Draw) -> str:
    """The statement as a sentence behind a hedge such as 'perhaps'."""
    return sentence(draw.one_of(HEDGES).format(statement))

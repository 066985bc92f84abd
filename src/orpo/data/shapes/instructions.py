"""Readers of shapes that hold one instruction and its answers as text; they become a user's and an assistant's messages."""

from __future__ import annotations

from orpo.core.records import Conversation, Message
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.pairs import Draft, Reader
from orpo.data.shapes.problems import RowProblem, dropped


def instruction(prompt: str, chosen: str = "chosen", rejected: str = "rejected") -> Reader:
    """The reader of a column with the user's text and two columns with the answers."""

    def read(fields: Fields) -> Draft:
        return Draft(user(fields.text(prompt)), reply(fields.text(chosen)), reply(fields.text(rejected)))

    return read


def user(text: str) -> Conversation:
    """A prompt of one message; an empty text gives none, which is an error later."""
    return (Message("user", text),) if text.strip() else ()


def reply(text: str) -> Conversation:
    """An answer of one message."""
    return (Message("assistant", text),)


def alpaca(fields: Fields) -> Draft:
    """instruction, input and history with chosen and rejected."""
    return Draft(alpaca_prompt(fields), reply(fields.text("chosen")), reply(fields.text("rejected")))


def alpaca_output_pair(fields: Fields) -> Draft:
    """instruction, input and history with output = [chosen, rejected]."""
    answers = fields.items("output")
    if len(answers) != 2 or not all(isinstance(answer, str) for answer in answers):
        message = f"'output' holds {len(answers)} entries, expected two texts: the chosen and the rejected answer"
        raise RowProblem("wrong-type", message, fix="give the chosen answer first and the rejected one second")
    return Draft(alpaca_prompt(fields), reply(answers[0]), reply(answers[1]))


def alpaca_prompt(fields: Fields) -> Conversation:
    """The history's turns, then the instruction with the input on the next line."""
    text, given = fields.text("instruction"), fields.optional_text("input")
    return (*_history(fields), *user(f"{text}\n{given}" if given else text))


def _history(fields: Fields) -> Conversation:
    if not fields.has("history"):
        return ()
    turns: list[Message] = []
    for round_ in fields.items("history"):
        if not isinstance(round_, list | tuple) or len(round_) != 2 or not all(isinstance(text, str) for text in round_):
            message = f"'history' holds {str(round_)[:60]!r}, expected [question, answer]"
            raise RowProblem("wrong-type", message, fix="write the history as [[question, answer], ...]")
        turns += [Message("user", round_[0]), Message("assistant", round_[1])]
    return tuple(turns)


def distilabel_orca(fields: Fields) -> Draft:
    """input, chosen and rejected, left out where the judge saw a tie: the status says so, or both ratings are equal."""
    if fields.optional_text("status") == "tie":
        raise dropped("tie", "the status of the row is 'tie'")
    ratings = fields.items("rating") if fields.has("rating") else []
    if len(ratings) == 2 and isinstance(ratings[0], int | float) and ratings[0] == ratings[1]:
        raise dropped("tie", f"both answers are rated {ratings[0]:g}")
    return instruction("input")(fields)

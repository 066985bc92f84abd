"""Readers of shapes whose answers are text without roles: plain strings and HH-RLHF transcripts."""

from __future__ import annotations

from orpo.core.records import Message
from orpo.data.shapes.answers import refuse_chat_columns
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.pairs import Draft, split
from orpo.data.shapes.problems import RowProblem
from orpo.data.shapes.shared_prefix import shared_prompt
from orpo.data.transcripts import parse_transcript


def strings(fields: Fields) -> Draft:
    """prompt, chosen and rejected as they are."""
    prompt, chosen, rejected = fields.text("prompt"), fields.text("chosen"), fields.text("rejected")
    repeats = bool(prompt.strip()) and chosen.startswith(prompt) and rejected.startswith(prompt)
    told = ("prompt-repeated", "both answers begin with the prompt's text, which is trained on as a part of them")
    return Draft(prompt, chosen, rejected, warnings=(told,) if repeats else ())


def strings_with_repeated_prompt(fields: Fields) -> Draft:
    """chosen and rejected begin with the prompt's text: it is taken off both, so that it is not trained on twice."""
    prompt, chosen, rejected = fields.text("prompt"), fields.text("chosen"), fields.text("rejected")
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not text.startswith(prompt):
            message = f"{name} does not begin with the prompt, as it does in the first rows"
            raise RowProblem("prompts-differ", message, fix="repeat the prompt in all rows or in none")
    return Draft(prompt, chosen[len(prompt) :], rejected[len(prompt) :])


def strings_without_prompt(fields: Fields) -> Draft:
    """chosen and rejected are whole texts: the prompt is what both begin with."""
    return Draft(*shared_prompt(fields.text("chosen"), fields.text("rejected")))


def transcripts(fields: Fields) -> Draft:
    """chosen and rejected are whole transcripts: the prompt is the turns that both begin with. A prompt column only repeats them."""
    refuse_chat_columns(fields)
    return Draft(*split(parse_transcript(fields.text("chosen")), parse_transcript(fields.text("rejected"))))


def prompt_transcript(fields: Fields) -> Draft:
    """The prompt is a transcript up to 'Assistant:', the answers are text."""
    refuse_chat_columns(fields)
    turns = parse_transcript(fields.text("prompt"))
    if turns[-1].role == "assistant" and not turns[-1].content:
        turns = turns[:-1]
    chosen, rejected = (Message("assistant", fields.text(side).strip(" \t\r\n")) for side in ("chosen", "rejected"))
    return Draft(turns, (chosen,), (rejected,))

"""Readers of shapes whose answers are messages."""

from __future__ import annotations

from orpo.core.records import Conversation, Message
from orpo.data.shapes import turns
from orpo.data.shapes.answers import same_turn
from orpo.data.shapes.fields import Fields
from orpo.data.shapes.pairs import Draft, Reader, prompts_differ, split
from orpo.data.shapes.problems import RowProblem


def messages(fields: Fields) -> Draft:
    """prompt, chosen and rejected as messages; answers given as whole conversations must begin with the prompt's messages."""
    prompt, chosen, rejected = fields.messages("prompt"), fields.answer("chosen"), fields.answer("rejected")
    return Draft(prompt, _without_prompt(chosen, prompt, "chosen"), _without_prompt(rejected, prompt, "rejected"))


def _without_prompt(answer: Conversation, prompt: Conversation, name: str) -> Conversation:
    if answer[0].role == "assistant" and not same_turn(answer[0], prompt[0]):
        return answer
    if len(answer) < len(prompt) or not all(map(same_turn, answer, prompt)):
        raise prompts_differ(f"{name} is a whole conversation that does not begin with the prompt's messages")
    return answer[len(prompt) :]


def prompt_and_conversations(fields: Fields) -> Draft:
    """The prompt as text, chosen and rejected as messages: answers alone, or whole conversations, whose own prompt is then used once."""
    chosen, rejected = fields.messages("chosen"), fields.messages("rejected")
    whole = [side[0].role != "assistant" for side in (chosen, rejected)]
    if not any(whole):
        text = fields.text("prompt")
        return Draft((Message("user", text),) if text.strip() else (), chosen, rejected)
    if not all(whole):
        raise prompts_differ(f"chosen begins with the {chosen[0].role}'s turn, rejected with the {rejected[0].role}'s")
    prompt, chosen, rejected = split(chosen, rejected)
    text = fields.optional_text("prompt").strip()
    if not text or any(text == turn.content.strip() for turn in prompt):
        return Draft(prompt, chosen, rejected)
    told = ("prompt-column-differs", "the prompt column is no turn of the conversations: the conversations' own prompt is used")
    return Draft(prompt, chosen, rejected, warnings=(told,))


def whole_conversations(chosen: str, rejected: str) -> Reader:
    """The reader of two columns that hold whole conversations: the prompt is the messages that both begin with."""

    def read(fields: Fields) -> Draft:
        return Draft(*split(fields.messages(chosen), fields.messages(rejected)))

    return read


def prompt_and_answers(prompt: str, chosen: str = "chosen", rejected: str = "rejected") -> Reader:
    """The reader of a column with the messages before the answer and two columns with the answers."""

    def read(fields: Fields) -> Draft:
        return Draft(fields.messages(prompt), fields.answer(chosen), fields.answer(rejected))

    return read


def rejected_beside_messages(fields: Fields) -> Draft:
    """messages ends with the chosen answer; rejected_response holds the other one."""
    whole = fields.messages("messages")
    num = last_answer(whole, fields.place("messages"))
    return Draft(whole[:num], whole[num:], fields.answer("rejected_response"))


def last_answer(whole: Conversation, place: str) -> int:
    """Where the last answer of a conversation begins: its last run of the assistant's turns."""
    num = len(whole)
    while num > 0 and whole[num - 1].role == "assistant":
        num -= 1
    if num == len(whole):
        fix = "the last message must be the assistant's answer"
        raise RowProblem("wrong-role", f"{place} ends with the {whole[-1].role}'s turn, expected the assistant's", fix=fix)
    return num


def openai(better: str, worse: str) -> Reader:
    """The reader of OpenAI's preference format: input.messages and input.tools, then two columns with the answers."""

    def read(fields: Fields) -> Draft:
        given = fields.mapping("input")
        if not isinstance(given.get("messages"), list):
            found = ", ".join(map(str, given)) or "nothing"
            fix = "the format is {'input': {'messages': [...]}, ...}"
            raise RowProblem("missing-column", f"'input' has no list 'messages'; it holds {found}", fix=fix)
        prompt = turns.conversation(given["messages"], "'input.messages'")
        return Draft(prompt, fields.answer(better), fields.answer(worse), turns.tools(given.get("tools"), "'input.tools'"))

    return read

"""Examples as text: a prompt with its completions and a template enter, the full text of each row and the prompt that they share leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from orpo.core.records import Conversation, Message
from orpo.data.control_text import ControlText, Marks, Piece, all_strings, unused_marks
from orpo.data.example import Example
from orpo.data.row import Problem, Severity
from orpo.data.templates import SECONDS_PER_ROW, Template
from orpo.data.time_budget import OverTimeError, TimeBudget
from orpo.errors import ConfigError

LENGTH_ALLOWED = 200_000
LENGTH_FACTOR = 20
SLOW_ROWS_ALLOWED = 3
_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """Texts as pieces (text, typed as a control token in data): the prompt, and prompt + completion for each completion.

    `ends_turn`: whether each full text ends with a token of the template.
    """

    prompt: tuple[Piece, ...]
    full: tuple[tuple[Piece, ...], ...]
    ends_turn: tuple[bool, ...]
    is_joined: bool = False

    @property
    def has_typed_control(self) -> bool:
        """Whether a control token was typed inside the data."""
        return any(is_typed for pieces in (self.prompt, *self.full) for _, is_typed in pieces)


class Renderer:
    """Renders examples with one template. Used inside a `with` block, which runs the time budget's watcher."""

    def __init__(self, tokenizer: Any, template: Template, control: ControlText, *, seconds_per_row: float = SECONDS_PER_ROW) -> None:
        self._tokenizer, self._template, self._control = tokenizer, template, control
        self._seconds = seconds_per_row
        self._slow_rows = 0

    @property
    def is_raw(self) -> bool:
        """Whether no chat template is applied."""
        return self._template.is_raw

    def rendered(self, example: Example, budget: TimeBudget) -> Rendered | Problem:
        """The example as text, or the reason why it has none."""
        if self._template.is_raw:
            return self._raw(example)
        try:
            return budget.run(lambda: self._chat(as_chat(example)))
        except OverTimeError as error:
            return self._too_slow(example, error)
        except Exception as error:
            # Whatever a template raises is about this row; its text is the template author's own explanation.
            return _problem(example, "template-error", f"{self._template.description} refuses this row: {_said(error)}", fix=_FIX_TEMPLATE)

    def budget(self) -> TimeBudget:
        """A fresh budget for one batch of rows."""
        return TimeBudget(self._seconds)

    def _too_slow(self, example: Example, error: OverTimeError) -> Problem:
        self._slow_rows += 1
        message = f"{self._template.description} does not end on this row: {error}"
        problem = _problem(example, "template-too-slow", message, fix=_FIX_TEMPLATE)
        if self._slow_rows >= SLOW_ROWS_ALLOWED:
            raise ConfigError(f"{problem.message}; {self._slow_rows} rows took too long", where=str(example.source), fix=_FIX_TEMPLATE)
        return problem

    def _raw(self, example: Example) -> Rendered | Problem:
        try:
            prompt, completions = _plain_texts(example)
        except ValueError as error:
            return _problem(example, "template-error", str(error), fix="use a chat template: --template tokenizer or --template FILE.jinja")
        if not all(text.strip() for text in completions):
            return _empty(example)
        # One text is cut at control tokens as a whole: "<|im_" + "end|>" makes one only where the two meet.
        texts = tuple(self._control.pieces(prompt + text) for text in completions)
        is_joined = prompt[-1:].isalnum() and any(text[0].isalnum() for text in completions)
        return Rendered(self._control.pieces(prompt), texts, (False,) * len(texts), is_joined)

    def _chat(self, example: Example) -> Rendered | Problem:
        parts = (example.prompt, *example.completions)
        turns = [[message.as_dict() for message in part] for part in parts if isinstance(part, tuple)]
        tools: Any = [dict(tool) for tool in example.tools]
        marks = None
        if self._control.found_in(turns) or self._control.found_in(tools):
            marks = unused_marks([turns, tools])
            turns, tools = self._control.marked(turns, marks), self._control.marked(tools, marks)
        prompt, *full = self._texts(turns, tools)
        header = self._header(prompt, full, turns, tools)
        if header is None:
            return _problem(example, "template-no-common-prompt", _NO_COMMON_PROMPT.format(self._template.description), fix=_FIX_TEMPLATE)
        cut = [self._without_trailing_space(text) for text in full]
        if any(self._is_empty(text[len(header) :]) for text in cut):
            return _empty(example)
        ends = tuple(self._control.ends(text) for text in cut)
        return Rendered(_cut(header, marks), tuple(_cut(text, marks) for text in cut), ends)

    def _texts(self, turns: list[list[dict[str, Any]]], tools: Any) -> list[str]:
        """Prompt with the generation prompt, then prompt + completion for each completion."""
        prompt, *completions = turns
        return [self._apply(prompt, tools, starts_reply=True)] + [self._apply(prompt + turn, tools) for turn in completions]

    def _apply(self, messages: list[dict[str, Any]], tools: Any, *, starts_reply: bool = False) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages, tools=tools or None, chat_template=self._template.jinja, tokenize=False, add_generation_prompt=starts_reply
        )
        if len(text) > LENGTH_ALLOWED and len(text) > (limit := LENGTH_ALLOWED + LENGTH_FACTOR * len(all_strings([messages, tools]))):
            raise ValueError(f"it made {len(text):,} characters of the row; at most {limit:,} are believable")
        return text

    def _header(self, prompt: str, full: list[str], turns: list[list[dict[str, Any]]], tools: Any) -> str | None:
        """The text all rows share up to the answer: `prompt`, or less where its generation prompt says what the full rows do not."""
        if all(text.startswith(prompt) for text in full):
            return prompt
        # Some templates open the reply differently when it is known (reasoning ones write <think> only into the generation prompt).
        # Where the answers begin is seen with a probe in their place, so that a like beginning of all never joins the prompt.
        probe = unused_marks([turns, tools, prompt, *full]).opening
        probes = [self._apply(turns[0] + [{**turn[0], "content": probe}], tools) for turn in turns[1:]]
        header = common_prefix(prompt, *probes, *full)
        prompt_alone = common_prefix(prompt, self._apply(turns[0], tools))
        return header if len(header) >= len(prompt_alone) > 0 else None

    def _without_trailing_space(self, text: str) -> str:
        """Without the white space that templates put after the token that ends a turn: a model never has to write it."""
        stripped = text.rstrip()
        return stripped if self._control.ends(stripped) else text

    def _is_empty(self, completion: str) -> bool:
        return not self._control.without_control(completion).strip()


def as_chat(example: Example) -> Example:
    """The example as messages: plain text becomes one user turn and one assistant turn."""
    if not isinstance(example.prompt, str):
        return example
    completions = tuple((Message("assistant", str(text)),) for text in example.completions)
    return replace(example, prompt=(Message("user", example.prompt),), completions=completions)


def common_prefix(first: str, *others: str) -> str:
    """The longest text that all begin with."""
    for other in others:
        low, high = 0, min(len(first), len(other))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if first[:middle] == other[:middle] else (low, middle - 1)
        first = first[:low]
    return first


def transcript(turns: Conversation) -> str:
    """Turns as "\\n\\nHuman: ...\\n\\nAssistant: ..." with a system text first. Raises ValueError where a turn calls tools."""
    return "".join(_spoken(turn) for turn in turns)


def _spoken(turn: Message) -> str:
    if turn.extra.get("tool_calls"):
        raise ValueError("a plain transcript has no place for tool calls")
    if turn.role == "system":
        return turn.content
    return f"\n\n{_SPEAKERS.get(turn.role, turn.role.capitalize())}: {turn.content}"


def _plain_texts(example: Example) -> tuple[str, list[str]]:
    """The prompt and each completion without a template. Raises ValueError where a transcript has no place for what the turns hold."""
    if isinstance(example.prompt, str):
        return example.prompt, [str(text) for text in example.completions]
    if example.tools:
        raise ValueError("a plain transcript has no place for tools")
    opening = "\n\nAssistant:"
    answers = [transcript(tuple(part)) for part in example.completions]  # type: ignore[arg-type]
    if not all(answer.startswith(opening) for answer in answers):
        raise ValueError("the answer does not begin with an assistant turn")
    return transcript(example.prompt) + opening, [answer.removeprefix(opening) for answer in answers]


def _cut(text: str, marks: Marks | None) -> tuple[Piece, ...]:
    return marks.pieces(text) if marks else ((text, False),)


def _said(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _empty(example: Example) -> Problem:
    return _problem(example, "empty-answer", "an answer is empty once the template is applied", severity="dropped")


def _problem(example: Example, kind: str, message: str, *, fix: str = "", severity: Severity = "error") -> Problem:
    return Problem(kind, message, example.source, severity, fix)


_FIX_TEMPLATE = "change the row, or choose another template with --template"
_NO_COMMON_PROMPT = (
    "{} renders the prompt differently when the answer follows, so the prompt cannot be split off; "
    "expected the same text for the earlier turns"
)

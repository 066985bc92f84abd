"""Pairs as text: a pair and a template enter, the full text of both rows and the length of their common prompt leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from orpo.core.records import Conversation, Message, PreferencePair
from orpo.data.control_text import ControlText, Marks, Piece, all_strings, unused_marks
from orpo.data.row import Problem, Severity
from orpo.data.templates import SECONDS_PER_ROW, Template
from orpo.data.time_budget import OverTimeError, TimeBudget
from orpo.errors import ConfigError

LENGTH_ALLOWED = 200_000
LENGTH_FACTOR = 20
SLOW_ROWS_ALLOWED = 3
_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class RenderedPair:
    """Texts as pieces (text, typed as a control token in data). `ends_turn`: whether each full text ends with a token of the template."""

    prompt: tuple[Piece, ...]
    full: tuple[tuple[Piece, ...], tuple[Piece, ...]]
    ends_turn: tuple[bool, bool]
    is_joined: bool = False

    @property
    def has_typed_control(self) -> bool:
        """Whether a control token was typed inside the data."""
        return any(is_typed for pieces in (self.prompt, *self.full) for _, is_typed in pieces)


class Renderer:
    """Renders pairs with one template. Used inside a `with` block, which runs the time budget's watcher."""

    def __init__(self, tokenizer: Any, template: Template, control: ControlText, *, seconds_per_row: float = SECONDS_PER_ROW) -> None:
        self._tokenizer, self._template, self._control = tokenizer, template, control
        self._seconds = seconds_per_row
        self._slow_rows = 0

    def rendered(self, pair: PreferencePair, budget: TimeBudget) -> RenderedPair | Problem:
        """The pair as text, or the reason why it has none."""
        if self._template.is_raw:
            return self._raw(pair)
        try:
            return budget.run(lambda: self._chat(as_chat(pair)))
        except OverTimeError as error:
            return self._too_slow(pair, error)
        except Exception as error:
            # Whatever a template raises is about this row; its text is the template author's own explanation.
            return _problem(pair, "template-error", f"{self._template.description} refuses this row: {_said(error)}", fix=_FIX_TEMPLATE)

    def budget(self) -> TimeBudget:
        """A fresh budget for one batch of rows."""
        return TimeBudget(self._seconds)

    def _too_slow(self, pair: PreferencePair, error: OverTimeError) -> Problem:
        self._slow_rows += 1
        problem = _problem(pair, "template-too-slow", f"{self._template.description} does not end on this row: {error}", fix=_FIX_TEMPLATE)
        if self._slow_rows >= SLOW_ROWS_ALLOWED:
            raise ConfigError(f"{problem.message}; {self._slow_rows} rows took too long", where=str(pair.source), fix=_FIX_TEMPLATE)
        return problem

    def _raw(self, pair: PreferencePair) -> RenderedPair | Problem:
        try:
            prompt, chosen, rejected = _plain_texts(pair)
        except ValueError as error:
            return _problem(pair, "template-error", str(error), fix="use a chat template: --template tokenizer or --template FILE.jinja")
        if not chosen.strip() or not rejected.strip():
            return _empty(pair)
        # One text is cut at control tokens as a whole: "<|im_" + "end|>" makes one only where the two meet.
        texts = (self._control.pieces(prompt + chosen), self._control.pieces(prompt + rejected))
        is_joined = prompt[-1:].isalnum() and (chosen[0].isalnum() or rejected[0].isalnum())
        return RenderedPair(self._control.pieces(prompt), texts, (False, False), is_joined)

    def _chat(self, pair: PreferencePair) -> RenderedPair | Problem:
        turns = [[message.as_dict() for message in part] for part in (pair.prompt, pair.chosen, pair.rejected) if isinstance(part, tuple)]
        tools: Any = [dict(tool) for tool in pair.tools]
        marks = None
        if self._control.found_in(turns) or self._control.found_in(tools):
            marks = unused_marks([turns, tools])
            turns, tools = self._control.marked(turns, marks), self._control.marked(tools, marks)
        prompt, *full = self._texts(turns, tools)
        header = self._header(prompt, full, turns, tools)
        if header is None:
            return _problem(pair, "template-no-common-prompt", _NO_COMMON_PROMPT.format(self._template.description), fix=_FIX_TEMPLATE)
        cut = [self._without_trailing_space(text) for text in full]
        if any(self._is_empty(text[len(header) :]) for text in cut):
            return _empty(pair)
        ends = (self._control.ends(cut[0]), self._control.ends(cut[1]))
        chosen, rejected = (_cut(text, marks) for text in cut)
        return RenderedPair(_cut(header, marks), (chosen, rejected), ends)

    def _texts(self, turns: list[list[dict[str, Any]]], tools: Any) -> list[str]:
        """Prompt with the generation prompt, prompt + chosen, prompt + rejected."""
        prompt, chosen, rejected = turns
        return [self._apply(prompt, tools, starts_reply=True)] + [self._apply(prompt + turn, tools) for turn in (chosen, rejected)]

    def _apply(self, messages: list[dict[str, Any]], tools: Any, *, starts_reply: bool = False) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages, tools=tools or None, chat_template=self._template.jinja, tokenize=False, add_generation_prompt=starts_reply
        )
        if len(text) > LENGTH_ALLOWED and len(text) > (limit := LENGTH_ALLOWED + LENGTH_FACTOR * len(all_strings([messages, tools]))):
            raise ValueError(f"it made {len(text):,} characters of the row; at most {limit:,} are believable")
        return text

    def _header(self, prompt: str, full: list[str], turns: list[list[dict[str, Any]]], tools: Any) -> str | None:
        """The text both rows share up to the answer: `prompt`, or less where its generation prompt says what the full rows do not."""
        if all(text.startswith(prompt) for text in full):
            return prompt
        # Some templates open the reply differently when it is known (reasoning ones write <think> only into the generation prompt).
        # Where the answers begin is seen with a probe in their place, so that a like beginning of both never joins the prompt.
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


def as_chat(pair: PreferencePair) -> PreferencePair:
    """The pair as messages: plain text becomes one user turn and one assistant turn."""
    if not isinstance(pair.prompt, str):
        return pair
    prompt = (Message("user", pair.prompt),)
    chosen, rejected = ((Message("assistant", str(text)),) for text in (pair.chosen, pair.rejected))
    return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)


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


def _plain_texts(pair: PreferencePair) -> tuple[str, str, str]:
    if isinstance(pair.prompt, str):
        return pair.prompt, str(pair.chosen), str(pair.rejected)
    if pair.tools:
        raise ValueError("a plain transcript has no place for tools")
    opening = "\n\nAssistant:"
    answers = [transcript(tuple(part)) for part in (pair.chosen, pair.rejected)]  # type: ignore[arg-type]
    if not all(answer.startswith(opening) for answer in answers):
        raise ValueError("the answer does not begin with an assistant turn")
    chosen, rejected = (answer.removeprefix(opening) for answer in answers)
    return transcript(pair.prompt) + opening, chosen, rejected


def _cut(text: str, marks: Marks | None) -> tuple[Piece, ...]:
    return marks.pieces(text) if marks else ((text, False),)


def _said(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _empty(pair: PreferencePair) -> Problem:
    return _problem(pair, "empty-answer", "an answer is empty once the template is applied", severity="dropped")


def _problem(pair: PreferencePair, kind: str, message: str, *, fix: str = "", severity: Severity = "error") -> Problem:
    return Problem(kind, message, pair.source, severity, fix)


_FIX_TEMPLATE = "change the row, or choose another template with --template"
_NO_COMMON_PROMPT = (
    "{} renders the prompt differently when the answer follows, so the prompt cannot be split off; "
    "expected the same text for the earlier turns"
)

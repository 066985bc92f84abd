"""A chat template of transformers enters, a Modelfile of Ollama leaves: what it writes is compared with the dialects known here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from orpo.errors import ConfigError

Messages = Sequence[dict[str, str]]

PROBE: Messages = (
    {"role": "user", "content": "first question"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "second question"},
)
SYSTEM = {"role": "system", "content": "the rules"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How turns are written: `opening` with {role} and `closing` around each; or, with `is_instructed`, questions in brackets.

    `stops` end a reply; `system` is what the template says where the user gives no system message.
    """

    name: str
    opening: str
    closing: str
    stops: tuple[str, ...]
    system: str = ""
    is_instructed: bool = False
    has_system: bool = True

    @property
    def description(self) -> str:
        """What people read of it."""
        default = f", with a system message of its own ({self.system[:40]!r})" if self.system else ""
        return f"{self.name}{default}" if self.has_system else f"{self.name}; it has no place for a system message"

    def text(self, messages: Messages) -> str:
        """`messages` in this dialect, up to where a reply begins."""
        if self.is_instructed:
            opening, closing = self.opening, self.closing
            return "".join(
                opening.format(content=m["content"]) if m["role"] == "user" else closing.format(content=m["content"]) for m in messages
            )
        turns = "".join(self.opening.format(role=m["role"]) + m["content"] + self.closing for m in messages)
        return turns + self.opening.format(role="assistant")

    def go_template(self) -> str:
        """The same in Ollama's language."""
        if self.is_instructed:
            question, answer = (part.format(content="{{ .Content }}") for part in (self.opening, self.closing))
            turn = f'{{{{ if eq .Role "user" }}}}{question}{{{{ else if eq .Role "assistant" }}}}{answer}{{{{ end }}}}'
            return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}"
        if not self.opening:
            return "{{ .Prompt }}"
        turn = self.opening.format(role="{{ .Role }}") + "{{ .Content }}" + self.closing
        return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}{self.opening.format(role='assistant')}"


def known_dialects(eos: str) -> tuple[Dialect, ...]:
    """The dialects that a template is compared with; `eos` ends a sequence."""
    turns = (
        Dialect("ChatML", "<|im_start|>{role}\n", "<|im_end|>\n", ("<|im_end|>",)),
        Dialect("Llama 3", "<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>", ("<|eot_id|>",)),
        Dialect("Zephyr", "<|{role}|>\n", f"{eos}\n", (eos,)),
    )
    spaces = product((" ", ""), ("", " "), ("", " "))  # before [/INST], before an answer, behind its end: versions differ
    bracketed = ((f"[INST] {{content}}{before}[/INST]", f"{lead}{{content}}{eos}{gap}") for before, lead, gap in spaces)
    return (*turns, *(Dialect("Mistral", q, a, (eos,), is_instructed=True, has_system=False) for q, a in bracketed))


def dialect_of(tokenizer: Any, *, is_raw: bool = False) -> Dialect:
    """The dialect that the tokenizer's chat template writes; text as it stands without one, or where the model was trained so (`is_raw`).

    Raises ConfigError for a template that is none of the known ones.
    """
    eos = str(tokenizer.eos_token)
    if is_raw or not getattr(tokenizer, "chat_template", None):
        return Dialect("text as it stands, without a chat template", "", "", (eos,))
    plain, ruled = _written(tokenizer, PROBE), _written(tokenizer, (SYSTEM, *PROBE))
    for dialect in known_dialects(eos):
        stops = dialect.stops if eos in dialect.stops else (*dialect.stops, eos)
        found = replace(dialect, stops=stops)
        if plain == dialect.text(PROBE) and (not dialect.has_system or ruled == dialect.text((SYSTEM, *PROBE))):
            return found
        default = _own_system(dialect, plain)
        if default and ruled == dialect.text((SYSTEM, *PROBE)):
            return replace(found, system=default)
    known = ", ".join(dict.fromkeys(dialect.name for dialect in known_dialects(eos)))
    raise ConfigError(
        f"the chat template of this model is none that is known here; three turns become {plain[:200]!r}",
        doing="translating the chat template to Ollama's language",
        expected=f"one of {known}, or no template",
        fix="export --to gguf, and write a Modelfile with a TEMPLATE of your own",
    )


def _written(tokenizer: Any, messages: Messages) -> str:
    """What the chat template writes, without the token that begins a sequence: Ollama adds that itself. '' where it refuses."""
    try:
        text = str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    except Exception:  # templates raise errors of their own, of jinja, or of Python
        return ""
    return text.removeprefix(str(tokenizer.bos_token)) if tokenizer.bos_token else text


def _own_system(dialect: Dialect, plain: str) -> str:
    """The system message that a template writes by itself; '' where `plain` is nothing of the kind."""
    if dialect.is_instructed or not dialect.opening:
        return ""
    before, after = dialect.opening.format(role="system"), dialect.closing + dialect.text(PROBE)
    return plain[len(before) : -len(after)] if plain.startswith(before) and plain.endswith(after) else ""


def modelfile(weights: str, dialect: Dialect, *, num_ctx: int) -> str:
    """The text of a Modelfile for `weights`, a path from where it lies."""
    lines = [f"FROM {weights}", f'TEMPLATE """{dialect.go_template()}"""']
    lines += [f'SYSTEM """{dialect.system}"""'] if dialect.system else []
    lines += [f'PARAMETER stop "{stop}"' for stop in dialect.stops]
    return "\n".join([*lines, f"PARAMETER num_ctx {num_ctx}"]) + "\n"

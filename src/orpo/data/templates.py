"""How a pair becomes text: the tokenizer's own chat template, ChatML, a .jinja file, or no template. A tokenizer and a choice enter."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orpo.data.time_budget import OverTimeError, TimeBudget
from orpo.errors import ConfigError

Kind = Literal["tokenizer", "chatml", "file", "raw"]
CHOICES = ("auto", "tokenizer", "chatml", "raw")
SECONDS_PER_ROW = 5.0

_CHATML_BODY = (
    "{%- if tools %}{{ raise_exception('the chatml template has no place for tools') }}{% endif -%}"
    "{%- for message in messages -%}"
    "{%- if message['tool_calls'] %}{{ raise_exception('the chatml template has no place for tool calls') }}{% endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}"
)
_CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
_NO_POWER = "a chat template needs no powers and no number of nine digits; such arithmetic can freeze the program or fill its memory"


@dataclass(frozen=True, slots=True)
class Template:
    """A resolved choice. `jinja` is handed to transformers' sandbox; None with kind 'tokenizer' leaves the tokenizer to choose by name.

    `new_tokens` were added to the tokenizer: training has to seed, train and save the embedding rows `new_token_ids`.
    `notes` are sentences to show to the user.
    """

    kind: Kind
    jinja: str | None
    description: str
    fingerprint: str
    new_tokens: tuple[str, ...] = ()
    new_token_ids: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_raw(self) -> bool:
        """True when no chat template is applied: text as it stands, or turns as a transcript."""
        return self.kind == "raw"


def resolve_template(tokenizer: Any, choice: str, *, is_chat: bool, is_transcript: bool) -> Template:
    """The template for rows of messages (`is_chat`, of which `is_transcript` ones had a text form in the file) or of plain text.

    'auto': messages take the tokenizer's own template, transcripts without one their own text form, text stays as it is.
    'chatml' and a file change `tokenizer`: chat_template, and for chatml eos and missing tokens, so that a saved model talks as trained.
    Raises ConfigError for messages on a tokenizer without template, an unknown choice, and a template that is no jinja.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of {_name(tokenizer)} has no end-of-sequence token, so the model could never learn to stop",
            fix="set eos_token in its tokenizer_config.json",
        )
    has_own = bool(getattr(tokenizer, "chat_template", None))
    if choice == "auto":
        choice = "raw" if not is_chat or (is_transcript and not has_own) else "tokenizer"
    if choice == "raw":
        return _raw(is_chat=is_chat)
    if choice == "tokenizer":
        return _own(tokenizer) if has_own else _no_template(tokenizer)
    return _chatml(tokenizer) if choice == "chatml" else _from_file(tokenizer, choice)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 of what turns text into ids: vocabulary, merges, normalisation, added tokens, BOS and EOS. Not of padding or truncation."""
    digest = hashlib.sha256()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        digest.update(json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]).encode())
    else:
        state = backend.to_str()
        digest.update(state[state.index('"added_tokens"') :].encode())
    digest.update(json.dumps([tokenizer.bos_token_id, tokenizer.eos_token_id]).encode())
    return digest.hexdigest()


def _raw(*, is_chat: bool) -> Template:
    description = "turns as a transcript (Human: / Assistant:), no chat template" if is_chat else "the text as it stands, no chat template"
    return Template("raw", None, description, _fingerprint("raw", "transcript" if is_chat else "text"))


def _own(tokenizer: Any) -> Template:
    source = tokenizer.chat_template
    is_one = isinstance(source, str)
    for text in [source] if is_one else source.values():
        _ensure_usable(tokenizer, text, f"the chat template of {_name(tokenizer)}")
    printed = source if is_one else json.dumps(source, sort_keys=True)
    description = f"the chat template of {_name(tokenizer)}"
    return Template("tokenizer", source if is_one else None, description, _fingerprint("jinja", printed), notes=_notes(printed))


def _chatml(tokenizer: Any) -> Template:
    new = tuple(token for token in _CHATML_TOKENS if token not in tokenizer.get_vocab())
    begins_with_bos = tokenizer.bos_token is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    _add_control_tokens(tokenizer)
    tokenizer.eos_token = "<|im_end|>"
    # The tokenizer's own BOS goes into the template: every tool renders a chat without adding special tokens afterwards.
    source = ("{{- bos_token -}}" if begins_with_bos else "") + _CHATML_BODY
    tokenizer.chat_template = source
    ids = tuple(tokenizer.convert_tokens_to_ids(list(new)))
    said = f"; {' and '.join(new)} are new to the tokenizer" if new else ""
    notes = ("replies end with <|im_end|>, which is the end-of-sequence token of the saved tokenizer",)
    return Template("chatml", source, f"ChatML{said}", _fingerprint("jinja", source, *new), new, ids, notes)


def _add_control_tokens(tokenizer: Any) -> None:
    from transformers import AddedToken

    # Also where they are in the vocabulary already: only an added, special token is never cut into pieces.
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in _CHATML_TOKENS], special_tokens=True)


def _from_file(tokenizer: Any, choice: str) -> Template:
    path = Path(choice).expanduser()
    if path.suffix not in (".jinja", ".jinja2", ".j2") or not path.is_file():
        raise ConfigError(
            f"the template {choice!r} is " + ("not a file that exists" if path.suffix else "unknown"),
            expected=f"{', '.join(CHOICES)}, or the path of a .jinja file",
            fix="use --template chatml for a base model, or give the path of a .jinja file",
        )
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the template {choice} cannot be read: {error}", fix="give a readable UTF-8 file") from error
    _ensure_usable(tokenizer, source, f"the template {choice}")
    tokenizer.chat_template = source
    return Template("file", source, f"the template file {path.name}", _fingerprint("jinja", source), notes=_notes(source))


def _no_template(tokenizer: Any) -> Template:
    raise ConfigError(
        f"the rows are conversations, but the tokenizer of {_name(tokenizer)} has no chat template",
        doing="choosing how conversations become text",
        fix="use --template chatml for a base model, --template FILE.jinja, or --template raw for a plain transcript",
    )


def _ensure_usable(tokenizer: Any, source: str, name: str) -> None:
    """Raises ConfigError for a template that cannot be parsed, never ends, or could freeze the interpreter in one operation."""
    import jinja2

    try:
        tokens = list(jinja2.Environment().lex(source))
        _ensure_bounded_arithmetic(tokens, name)
        probe = [{"role": "user", "content": "a"}]
        with TimeBudget(SECONDS_PER_ROW) as budget:
            budget.run(lambda: tokenizer.apply_chat_template(probe, chat_template=source, tokenize=False, add_generation_prompt=True))
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{name} is not valid jinja: line {error.lineno}: {error.message}", fix="correct the template") from error
    except OverTimeError as error:
        raise ConfigError(f"{name} does not end: {error} on one short message", fix="use another template") from error
    except ConfigError:
        raise
    except Exception:
        # It may refuse this probe (wants a system turn, or tools): what it says of the rows is what counts.
        return


def _ensure_bounded_arithmetic(tokens: list[tuple[int, str, str]], name: str) -> None:
    # The time budget cannot interrupt 9**9**9 or 'a'*10**10: each is one call into C.
    for line, kind, text in tokens:
        if (kind == "operator" and text == "**") or (kind == "integer" and len(text.replace("_", "")) >= 9):
            raise ConfigError(f"{name} contains {text} in line {line}", expected=_NO_POWER, fix="use another template")


def _notes(source: str) -> tuple[str, ...]:
    if "strftime_now" not in source:
        return ()
    return ("the template may write today's date into every prompt, so the same data give other tokens on another day",)


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "")) or "this model"

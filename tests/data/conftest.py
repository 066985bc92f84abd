"""Tiny tokenizers of the kinds people meet, trained on the spot, and pairs to feed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from orpo.core.records import Conversation, Message, PreferencePair, Source

TEXT = [
    "the quick brown fox jumps over the lazy dog. What is the capital of this country? It is Paris, a large city near the sea.",
    "\n\nHuman: hello, can you help me bake bread?\n\nAssistant: hi there, mix flour, water and yeast: 1/2 cup <b>each</b> | stir_well",
] * 4
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(*, bos: bool = True, special: list[str] | None = None) -> Any:
    """A byte-level BPE tokenizer, as Llama 3, Qwen or GPT-2 have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = SPECIAL if special is None else special
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(TEXT, trainer)
    return wrapped(bpe, bos=bos)


def sentencepiece_bpe(*, scheme: str = "first", bos: bool = True) -> Any:
    """A BPE tokenizer with a space before the first word and byte fallback, as Llama 2 and Mistral have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    bpe.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False))
    state = json.loads(bpe.to_str())
    vocabulary = state["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    bpe = Tokenizer.from_str(json.dumps(state))
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return wrapped(bpe, bos=bos)


def sentencepiece_unigram(*, bos: bool = True) -> Any:
    """A Unigram tokenizer with a space before the first word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    unigram.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=list("<>|/_"), show_progress=False
    )
    unigram.train_from_iterator(TEXT, trainer)
    return wrapped(unigram, bos=bos)


def wrapped(backend: Any, *, bos: bool) -> Any:
    """The tokenizer as transformers gives it; with `bos` it puts <s> before every text."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    if bos:
        number = backend.token_to_id("<s>")
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", number)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", name_or_path="some/base")


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "byte-level": byte_level,
    "sentencepiece": sentencepiece_bpe,
    "sentencepiece-always": lambda: sentencepiece_bpe(scheme="always"),
    "unigram": sentencepiece_unigram,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Each kind of tokenizer in turn; <s> before every text, no chat template."""
    return TOKENIZERS[request.param]()


@pytest.fixture
def byte_tokenizer() -> Any:
    """A byte-level tokenizer without a chat template."""
    return byte_level()


@pytest.fixture
def chat_tokenizer() -> Any:
    """A byte-level tokenizer with a ChatML template of its own."""
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture
def base_tokenizer() -> Any:
    """A byte-level tokenizer that knows nothing of ChatML."""
    return byte_level(special=["<unk>", "<s>", "</s>"])


@pytest.fixture
def text_pair() -> Callable[..., PreferencePair]:
    """Makes a pair of plain texts."""
    return lambda prompt, chosen, rejected, line=1: PreferencePair(prompt, chosen, rejected, Source("data.jsonl", line))


@pytest.fixture
def chat_pair() -> Callable[..., PreferencePair]:
    """Makes a pair of messages: the prompt is one user turn, or (role, content) turns."""

    def make(prompt: str | list[tuple[str, str]], chosen: str, rejected: str, line: int = 1, **parts: Any) -> PreferencePair:
        turns = [("user", prompt)] if isinstance(prompt, str) else prompt
        messages: Conversation = tuple(Message(role, content) for role, content in turns)
        answers = [(Message("assistant", text),) for text in (chosen, rejected)]
        return PreferencePair(messages, answers[0], answers[1], Source("data.jsonl", line), **parts)

    return make


@pytest.fixture(scope="session")
def build() -> dict[str, Callable[..., Any]]:
    """The builders by name, for tests that need other settings."""
    return {"byte-level": byte_level, "sentencepiece": sentencepiece_bpe, "unigram": sentencepiece_unigram}

"""What one pass over the rows gathers: pairs and problems enter; counts, tokenized pairs and 64-bit hashes of the pairs stay."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from orpo.core.records import PreferencePair
from orpo.core.tokens import TokenizedExample
from orpo.data.data_report import Tally
from orpo.data.limits import Overlong, apply_limit
from orpo.data.row import Problem
from orpo.data.store import TokenStore
from orpo.data.templates import Template, resolve_template
from orpo.data.tokenize import BATCH_PAIRS, PairTokenizer, Tokenized


@dataclass
class Gathering:
    """State of one pass. `tokenizer` None checks the structure alone; `use_template` must come before the first pair otherwise."""

    tokenizer: Any
    max_length: int | None
    overlong: Overlong
    tally: Tally = field(default_factory=Tally)
    template: Template | None = None
    store: TokenStore | None = None
    pair_tokenizer: PairTokenizer | None = None
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    pairs: array[int] = field(default_factory=lambda: array("Q"))
    shortest_too_long: int = 0

    def add(self, items: Iterable[PreferencePair | Problem]) -> None:
        """Takes pairs and problems, in order."""
        waiting: list[PreferencePair | Problem] = []
        num_pairs = 0
        for item in items:
            waiting.append(item)
            num_pairs += isinstance(item, PreferencePair)
            if num_pairs == BATCH_PAIRS:
                self._flush(waiting)
                waiting, num_pairs = [], 0
        self._flush(waiting)

    def use_template(self, choice: str | Template, *, is_chat: bool, is_transcript: bool) -> None:
        """Settles the template, once, and begins to tokenize. Raises ConfigError where the choice does not fit the rows."""
        if self.tokenizer is None or self.pair_tokenizer is not None:
            return
        if isinstance(choice, str):
            choice = resolve_template(self.tokenizer, choice, is_chat=is_chat, is_transcript=is_transcript)
        self.template, self.store, self.pair_tokenizer = choice, TokenStore(), PairTokenizer(self.tokenizer, choice)

    def _flush(self, items: Sequence[PreferencePair | Problem]) -> None:
        pairs = [item for item in items if isinstance(item, PreferencePair)]
        tokenized = iter(self.pair_tokenizer.batch(pairs)) if self.pair_tokenizer else None
        for item in items:
            if isinstance(item, Problem):
                self.tally.add(item)
            elif tokenized is None or self._kept(next(tokenized)):
                prompt, whole = pair_hashes(item)
                self.prompts.append(prompt)
                self.pairs.append(whole)

    def _kept(self, tokenized: Tokenized) -> bool:
        """Whether the pair went into the store; if not, its problem was counted."""
        result = tokenized.result
        if isinstance(result, TokenizedExample) and self.max_length is not None:
            result = self._limited(result, self.max_length)
        if isinstance(result, Problem):
            self.tally.add(result)
            return False
        assert self.store is not None
        self.store.append(result)
        self.tally.notes.update(tokenized.notes)
        return True

    def _limited(self, example: TokenizedExample, max_length: int) -> TokenizedExample | Problem:
        result = apply_limit(example, max_length, self.overlong)
        if result is example:
            return result
        if isinstance(result, Problem):
            needed = len(example.prompt_ids) + max(map(len, example.completions))
            self.shortest_too_long = min(self.shortest_too_long or needed, needed)
            return result
        cuts = [len(old) - len(new) for old, new in zip(example.completions, result.completions, strict=True)]
        self.tally.notes.update({"rows-cut": 1, "answers-cut": sum(cut > 0 for cut in cuts), "tokens-cut": sum(cuts)})
        return result


def pair_hashes(pair: PreferencePair) -> tuple[int, int]:
    """64-bit hashes of the prompt, and of prompt, chosen and rejected together."""
    parts = [
        part if isinstance(part, str) else repr([turn.as_dict() for turn in part]) for part in (pair.prompt, pair.chosen, pair.rejected)
    ]
    return _hash(parts[:1]), _hash(parts)


def _hash(parts: Sequence[str]) -> int:
    digest = blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)  # with its length: "ab" + "c" is not "a" + "bc"
    return int.from_bytes(digest.digest(), "little")

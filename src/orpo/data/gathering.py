"""What one pass over the rows gathers: records and problems enter; counts, tokenized examples and 64-bit hashes of them stay."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orpo.core.records import LabelledAnswer, PreferencePair, Reads, Record, Source
from orpo.core.tokens import TokenizedExample
from orpo.data.data_report import Tally
from orpo.data.example import Example, as_example, group_hash, text_of
from orpo.data.label_balance import num_possible_pairs
from orpo.data.length_bias import LengthCounts
from orpo.data.limits import IDENTICAL_AFTER_CUT, Overlong, apply_limit
from orpo.data.max_lengths import FullLengths
from orpo.data.row import Problem
from orpo.data.store import TokenStore
from orpo.data.templates import Template, resolve_template
from orpo.data.tokenize import BATCH_EXAMPLES, IDENTICAL_TOKENS, JOINED_WORDS, SPECIAL_TOKEN_TEXT, ExampleTokenizer, Tokenized
from orpo.data.traces import RowTraces

_NOUNS: Mapping[Reads, str] = {"pairs": "pair", "labelled": "labelled answer", "rankings": "ranking"}

_ODD = {
    SPECIAL_TOKEN_TEXT: "the text of a control token, such as </s>, is encoded as plain text, not as the token",
    JOINED_WORDS: "no space or line break stands between the last word of the prompt and the first of the answer",
    IDENTICAL_TOKENS: "an answer is the same as a better one once the template is applied: it does not take part",
    IDENTICAL_AFTER_CUT: "an answer became the same as a better one when it was cut: it does not take part",
}


@dataclass
class Gathering:
    """State of one pass. `tokenizer` None checks the structure alone; `use_template` must come before the first record otherwise.

    `traces` has an entry for each example that is kept; `labels` and `sizes` count its labels and its completions. `lengths` compares those
    of chosen and rejected; `full_lengths` are those before a limit.
    """

    tokenizer: Any
    max_length: int | None
    overlong: Overlong
    reads: Reads = "pairs"
    tally: Tally = field(default_factory=Tally)
    template: Template | None = None
    store: TokenStore | None = None
    example_tokenizer: ExampleTokenizer | None = None
    traces: RowTraces = field(default_factory=RowTraces)
    full_lengths: FullLengths = field(default_factory=FullLengths)
    labels: Counter[bool] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    possible_pairs: int = 0
    shortest_too_long: int = 0
    noun: str = ""
    lengths: LengthCounts = field(init=False)

    def __post_init__(self) -> None:
        self.noun = _NOUNS[self.reads]
        self.lengths = LengthCounts("characters" if self.tokenizer is None else "tokens")

    def add(self, items: Iterable[Record | Problem]) -> None:
        """Takes the records and problems of one path, in order."""
        groups: tuple[array[int], array[int]] = (array("Q"), array("b"))
        waiting: list[Record | Problem] = []
        num_records = 0
        for item in items:
            waiting.append(item)
            num_records += not isinstance(item, Problem)
            if num_records == BATCH_EXAMPLES:
                self._flush(waiting, *groups)
                waiting, num_records = [], 0
        self._flush(waiting, *groups)
        self.possible_pairs += num_possible_pairs(*groups)

    def use_template(self, choice: str | Template, *, is_chat: bool, is_transcript: bool) -> None:
        """Settles the template, once, and begins to tokenize. Raises ConfigError where the choice does not fit the rows."""
        if self.tokenizer is None or self.example_tokenizer is not None:
            return
        if isinstance(choice, str):
            choice = resolve_template(self.tokenizer, choice, is_chat=is_chat, is_transcript=is_transcript)
        self.template, self.store, self.example_tokenizer = choice, TokenStore(), ExampleTokenizer(self.tokenizer, choice)

    def _flush(self, items: Sequence[Record | Problem], groups: array[int], is_desirable: array[int]) -> None:
        """Keeps what is left of the records. A labelled answer also leaves its group and its label, to count the pairs it could give."""
        examples = [None if isinstance(item, Problem) else as_example(item, self.reads) for item in items]
        records = [example for example in examples if example is not None]
        tokenized = iter(self.example_tokenizer.batch(records)) if self.example_tokenizer else None
        for item, example in zip(items, examples, strict=True):
            if isinstance(item, Problem):
                self.tally.add(item)
            elif example is not None:
                self.noun = _NOUNS["pairs"] if isinstance(item, PreferencePair) else _NOUNS[self.reads]
                size = len(example.completions) if tokenized is None else self._stored(next(tokenized))
                if size:
                    self._count(example, size)
                if size and isinstance(item, LabelledAnswer):
                    groups.append(group_hash(example))
                    is_desirable.append(item.is_desirable)

    def _count(self, example: Example, size: int) -> None:
        """Notes an example of which `size` completions are kept."""
        self.traces.append(example)
        if self.tokenizer is None:
            self._compare(example, [len(text_of(part)) for part in example.completions])
        self.labels.update(example.labels)
        self.sizes[size] += 1

    def _compare(self, example: Example | TokenizedExample, lengths: Sequence[int]) -> None:
        """Counts the lengths of chosen and rejected, of a pair alone."""
        if len(lengths) == 2 and not example.labels and not example.scores:
            self.lengths.add(*lengths)

    def _stored(self, tokenized: Tokenized) -> int:
        """How many completions went into the store; 0 where the example did not, and its problem was counted."""
        result = tokenized.result
        if isinstance(result, TokenizedExample):
            self.full_lengths.append(result)
        if isinstance(result, TokenizedExample) and self.max_length is not None:
            result = self._limited(result, self.max_length)
        if isinstance(result, Problem):
            self.tally.add(result)
            return 0
        assert self.store is not None
        self.store.append(result)
        self._compare(result, [len(ids) for ids in result.completions])
        self._note(tokenized.notes, result.source)
        return len(result.completions)

    def _limited(self, example: TokenizedExample, max_length: int) -> TokenizedExample | Problem:
        result = apply_limit(example, max_length, self.overlong)
        if result is example:
            return result
        longest_row = len(example.prompt_ids) + max(map(len, example.completions))
        if isinstance(result, Problem):
            self.shortest_too_long = min(self.shortest_too_long or longest_row, longest_row)
            return result
        room = max_length - len(example.prompt_ids)
        cuts = [max(len(ids) - room, 0) for ids in example.completions]
        num_equal = len(example.completions) - len(result.completions)
        self.tally.notes.update({"rows-cut": 1, "answers-cut": sum(cut > 0 for cut in cuts), "tokens-cut": sum(cuts)})
        self._note([IDENTICAL_AFTER_CUT] * num_equal, example.source)
        return result

    def _note(self, notes: Iterable[str], source: Source) -> None:
        """Counts what is odd about the tokens of a row: as a warning with its place, or where it is no more than a figure as that."""
        for note in notes:
            if note in _ODD:
                self.tally.add(Problem(note, _ODD[note], source, "warning"))
            else:
                self.tally.notes[note] += 1

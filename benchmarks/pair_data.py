"""Pairs as token ids: real texts tokenized as a run does it, or random ids of given lengths; and which pairs make which step."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FILES = {"hh": SHARED / "hh-harmless-pairs.jsonl.gz", "mixed-long": SHARED / "mixed-long-pairs.json"}
LENGTHS = {"synthetic": (95, 30, 0.8), "hh-like": (95, 30, 0.8), "ultrafeedback-like": (150, 300, 0.6)}
"""Median tokens of prompt and answer of random pairs, and the standard deviation of the logarithm of both. The first is fitted to the HH
pairs: 211 distinct tokens a pair, 3.9 times as many in padded steps of 8. UltraFeedback has long answers to a short question."""
NUM_RANDOM_PAIRS = 512


class NoData(Exception):
    """The real pairs are not on this machine."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Pairs in the order in which they are trained on: `warm_up` steps, then rounds of `steps_per_round` steps."""

    pairs: tuple[TokenizedExample, ...]
    pairs_per_step: int
    warm_up: int
    steps_per_round: int
    rounds: int

    @property
    def num_steps(self) -> int:
        return self.warm_up + self.rounds * self.steps_per_round

    @property
    def measured_pairs(self) -> tuple[TokenizedExample, ...]:
        """The pairs of all rounds, without the warm-up."""
        return self.pairs[self.warm_up * self.pairs_per_step :]


def load_pairs(name: str, *, vocabulary: int, seed: int) -> list[TokenizedExample]:
    """The pairs `name` stands for. Raises NoData when their file is absent."""
    if name in LENGTHS:
        prompt, answer, spread = LENGTHS[name]
        return random_pairs(NUM_RANDOM_PAIRS, prompt=prompt, answer=answer, spread=spread, vocabulary=vocabulary, seed=seed)
    if not FILES[name].is_file():
        raise NoData(f"{FILES[name].name} is not in {SHARED.parent.name}/{SHARED.name} beside the repository; use --data synthetic")
    return _tokenized(FILES[name], vocabulary)


def random_pairs(num: int, *, prompt: float, answer: float, spread: float, vocabulary: int, seed: int) -> list[TokenizedExample]:
    """`num` pairs of uniform random ids; lengths are log-normal around the medians `prompt` and `answer`; spread 0 makes all equal."""
    numbers = np.random.default_rng(seed)
    pairs = []
    for row in range(num):
        drawn = np.array([prompt, answer, answer]) * np.exp(spread * numbers.standard_normal(3))
        ids = [numbers.integers(2, vocabulary, size=max(2, round(length)), dtype=np.int32) for length in drawn]
        ids[0][0] = 0  # as a tokenizer begins every row
        for completion in ids[1:]:
            completion[-1] = 1
        # The first tokens differ, so that prefix sharing ends where the prompt does, as it mostly does in text.
        ids[2][0] = 2 + (ids[1][0] - 1) % (vocabulary - 2)
        pairs.append(TokenizedExample(ids[0], (ids[1], ids[2]), Source("random", row + 1)))
    return pairs


def plan_steps(batches: Sequence[Sequence[TokenizedExample]], *, rounds: int, warm_up: int = 1) -> Steps:
    """Steps that warm up on the first batch and then go through `batches`, equally many of them in each round."""
    assert len(batches) % rounds == 0, f"{len(batches)} batches are not {rounds} equal rounds"
    measured = [pair for batch in batches for pair in batch]
    first = list(batches[0]) * warm_up
    return Steps(tuple(first + measured), len(batches[0]), warm_up, len(batches) // rounds, rounds)


def random_batches(pairs: Sequence[TokenizedExample], *, num: int, size: int, seed: int) -> list[list[TokenizedExample]]:
    """`num` batches of `size` pairs, drawn without regard to length."""
    order = np.random.default_rng([seed, 1]).permutation(len(pairs))
    assert num * size <= len(pairs), f"{num} x {size} pairs are asked for, {len(pairs)} are there"
    return [[pairs[i] for i in order[start * size : (start + 1) * size]] for start in range(num)]


def grouped_batches(pairs: Sequence[TokenizedExample], *, num: int, size: int, seed: int) -> list[list[TokenizedExample]]:
    """`num` batches of an epoch in the order of transformers' group_by_length, evenly spaced from its shortest batch to its longest.

    A pair is as long as its longer row. An epoch has batches of every length, so a few neighbours would not stand for it.
    """
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    lengths = [longest_row([pair]) for pair in pairs]
    order = get_length_grouped_indices(lengths, size, generator=torch.Generator().manual_seed(seed))
    whole = len(pairs) // size
    batches = sorted(([pairs[i] for i in order[batch * size : (batch + 1) * size]] for batch in range(whole)), key=longest_row)
    num = min(num, whole)
    return [batches[int((position + 0.5) * whole / num)] for position in range(num)][::-1]


def longest_row(pairs: Sequence[TokenizedExample]) -> int:
    """Tokens of the longest prompt with one completion."""
    return max(len(pair.prompt_ids) + max(map(len, pair.completions)) for pair in pairs)


def _tokenized(path: Path, vocabulary: int) -> list[TokenizedExample]:
    """All pairs of `path`, tokenized by the package's own check with a tokenizer trained on the file."""
    from orpo.data.checks import check_data

    template = "raw" if path.name.endswith(".jsonl.gz") else "chatml"
    data = check_data([str(path)], tokenizer=_tokenizer(path, min(vocabulary, 16_384)), template=template)
    data.raise_if_errors()
    assert data.store is not None
    return [data.store[i] for i in range(len(data.store))]


def _tokenizer(path: Path, vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens, trained on the texts of `path`; kept in the temporary folder."""
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    key = hashlib.sha256(path.read_bytes() + str(vocabulary).encode()).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"orpo-bench-tokenizer-{key}.json"
    if not kept.is_file():
        _train_bpe(_texts(path), vocabulary, special, kept)
    return PreTrainedTokenizerFast(tokenizer_file=str(kept), bos_token="<s>", eos_token="</s>", extra_special_tokens=special[2:])


def _train_bpe(texts: Callable[[], Iterator[str]], vocabulary: int, special: list[str], path: Path) -> None:
    """Nothing; `path` holds the tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts(), trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    bpe.save(str(path))


def _texts(path: Path) -> Callable[[], Iterator[str]]:
    """What starts a pass over every text in `path`."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return lambda: (row[side] for row in rows for side in ("chosen", "rejected"))
    rows = json.loads(path.read_text(encoding="utf-8"))
    return lambda: (turn["value"] for row in rows for turn in (*row["conversations"], row["chosen"], row["rejected"]))

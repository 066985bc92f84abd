"""The pairs of a comparison, in three files that never share one: to train on, to tune by, and held out. All stages read the same files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orpo.comparison.config import CompareConfig
from orpo.core.records import PreferencePair
from orpo.data.row import Row
from orpo.data.rows import open_data
from orpo.data.world import world_pairs, write_world_jsonl
from orpo.data.world.families import read_task
from orpo.errors import ConfigError, DataError
from orpo.runs.jsontext import to_text

WORLD_SEED = 0
SPLIT_SEED = 2**32 + 2
"""Which pairs are split off does not depend on the seeds of the comparison: all of them learn from the same pairs."""


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Paths of the pairs to train on, to tune by and to measure on."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]

    def fingerprint(self) -> str:
        """A hash of the contents of all three."""
        digest = hashlib.sha256()
        for paths in (self.train, self.validation, self.held_out):
            digest.update(b"part")
            for path in paths:
                digest.update(b"".join(bytes.fromhex(file.sha256) for file in open_data(path).files))
        return digest.hexdigest()


def pair_files(config: CompareConfig, folder: Path) -> PairFiles:
    """The files of `config`, written to `folder` where they are made here; the same config and data give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.jsonl" for name in ("train", "validation", "held-out")}
    if config.is_world:
        for name, pairs in _world(config).items():
            write_world_jsonl(paths[name], pairs)
    else:
        _write_split(config, paths)
    train, validation, held_out = ((str(paths[name]),) for name in paths)
    return PairFiles(train, validation, config.eval_data or held_out)


def _world(config: CompareConfig) -> dict[str, list[PreferencePair]]:
    """Pairs of the built-in world about facts of which no two parts share one: a quarter is held out, a quarter of the rest tunes."""
    train, validation = config.train_pairs, config.validation_pairs
    num = 2 * (train + validation)
    while True:
        drawn = world_pairs("train", num, seed=WORLD_SEED)  # fewer pairs are the beginning of more
        parts: dict[bool, list[PreferencePair]] = {True: [], False: []}
        for pair in drawn:
            parts[_tunes(pair)].append(pair)
        if len(parts[False]) >= train and len(parts[True]) >= validation:
            held_out = world_pairs("held_out", config.held_out_pairs, seed=WORLD_SEED)
            return {"train": parts[False][:train], "validation": parts[True][:validation], "held-out": held_out}
        num *= 2


def _tunes(pair: PreferencePair) -> bool:
    """Whether a pair is about one of the facts that are kept for tuning: one in four, whatever the seed."""
    task = read_task(question_of(pair))
    assert task is not None, "a pair of the world asks a question of the world"
    return hashlib.sha256(task.truth.item.encode()).digest()[1] % 4 == 0


def question_of(pair: PreferencePair) -> str:
    """What the user asks in a pair of the world."""
    assert not isinstance(pair.prompt, str), "pairs of the built-in world are messages"
    return pair.prompt[-1].content


def world_questions(path: str) -> list[str]:
    """The questions of a file of pairs of the world, in its order."""
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line)["prompt"][-1]["content"] for line in file]


def _write_split(config: CompareConfig, paths: Mapping[str, Path]) -> None:
    """Writes the rows of the data as they stand, each to the file of its part, in their order."""
    num = sum(1 for _ in _rows(config.data))
    held = 0 if config.eval_data else _size("holdout", config.holdout, num)
    tuning = _size("validation", config.validation, num - held)
    order = np.random.default_rng([SPLIT_SEED, num]).permutation(num)
    parts = np.full(num, "train", dtype="<U10")
    parts[order[:held]], parts[order[held : held + tuning]] = "held-out", "validation"
    with ExitStack() as stack:
        files = {name: stack.enter_context(path.open("w", encoding="utf-8", newline="\n")) for name, path in paths.items()}
        for name, row in zip(parts.tolist(), _rows(config.data), strict=True):
            files[name].write(_json(row) + "\n")


def _size(name: str, asked: float, num: int) -> int:
    """How many of `num` rows a share or a count is. Raises ConfigError where it leaves nothing."""
    size = round(asked * num) if asked < 1 else int(asked)
    if not 0 < size < num:
        raise ConfigError(f"{name} {asked:g} takes {size:,} of {num:,} rows", expected="some, and some left to train on", fix=f"set {name}")
    return size


def _rows(paths: Iterable[str]) -> Iterator[Row]:
    return (item for path in paths for item in open_data(path) if isinstance(item, Row))


def _json(row: Row) -> str:
    value: Any = row.value
    try:
        return to_text(value)
    except TypeError as error:
        raise DataError(f"this row cannot be written as JSON: {error}", where=str(row.source), fix="leave the column out") from None

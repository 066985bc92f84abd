"""Reference log-probs made once, before training, and kept in one file: examples enter, a table of their sums leaves.

The file is named by a fingerprint of what was scored and by what: the tokens themselves (so data, tokenizer, template and limits), the base
model's weights, and how the engine computed. It is used again only where all of that is the same and every byte of it is there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orpo.core.tokens import Examples, TokenizedExample
from orpo.engine.batching import in_order
from orpo.runs.atomic import write_bytes_atomic
from orpo.runs.jsontext import canonical, read_strictly
from orpo.runs.names import reference_name
from orpo.runs.storage import storage_errors
from orpo.training.ranks import from_first
from orpo.training.references import Totals

FORMAT_VERSION = 1
TOKENS_AT_ONCE = 4096
"""Tokens of a batch. Always the same, and the same batches on any number of ranks: a table made again has the same bits."""

Say = Callable[[str], None]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a table is about: a fingerprint of all that its numbers follow from, and where each example's completions begin in it."""

    fingerprint: str
    first: NDArray[np.int64]

    @property
    def num(self) -> int:
        """Completions of all examples."""
        return int(self.first[-1])


def scope_of(examples: Examples, facts: Mapping[str, Any]) -> Scope:
    """The scope of a table of `examples`; `facts` say which weights score them and how. One pass over all tokens."""
    digest = hashlib.sha256(canonical({"format_version": FORMAT_VERSION, **facts}))
    first = np.zeros(len(examples) + 1, dtype=np.int64)
    for index in range(len(examples)):
        example = examples[index]
        parts = (example.prompt_ids, *example.completions)
        digest.update(np.array([len(parts), *map(len, parts)], dtype="<i4").tobytes())
        for part in parts:
            digest.update(part.astype("<i4", copy=False).tobytes())
        first[index + 1] = first[index] + len(example.completions)
    return Scope(digest.hexdigest(), first)


def table_totals(
    examples: Examples, *, folder: Path, facts: Mapping[str, Any], score: Callable[[], Totals], device: str, say: Say
) -> Totals:
    """Reference log-probs of `examples` by their positions: read from `folder`, or made by `score()` and written there.

    All ranks share the work and get the same table. Memory: 8 bytes for each completion and each example, no tokens. Raises StorageError
    where the table cannot be written; a crash meanwhile leaves the old file, or none.
    """
    scope = scope_of(examples, facts)
    path = folder / reference_name(scope.fingerprint)
    found, why = from_first(lambda: read_table(path, scope))
    if found is not None:
        say(f"reference    {scope.num:,} completions read from {path}")
    else:
        if why:
            say(f"note         {path} is not used, {why}; its log-probs are made again")
        started = time.monotonic()
        found = _made(examples, scope, score(), device)
        table = found
        from_first(lambda: write_table(path, scope, table))
        say(f"reference    {scope.num:,} completions scored in {time.monotonic() - started:.1f} s, kept in {path}")
    totals = torch.from_numpy(found)

    def by_position(batch: Sequence[TokenizedExample], positions: Sequence[int]) -> Tensor:
        assert len(batch) == len(positions), "one position for each example"
        rows = [totals[scope.first[position] : scope.first[position + 1]] for position in positions]
        assert all(len(row) == len(example.completions) for row, example in zip(rows, batch, strict=True)), "not the examples scored"
        return torch.cat(rows).to(device) if rows else totals[:0].to(device)

    return by_position


def read_table(path: Path, scope: Scope) -> tuple[Numbers | None, str]:
    """(the numbers in `path`, '') if it is a whole table of `scope`; (None, why not) otherwise, '' where there is no file."""
    with storage_errors(path, "reading reference log-probs"):
        if not path.is_file():
            return None, ""
        header, _, content = path.read_bytes().partition(b"\n")
    try:
        facts = read_strictly(header.decode("ascii"))
    except (ValueError, RecursionError):
        return None, "its first line is damaged"
    if not isinstance(facts, dict) or facts.get("format_version") != FORMAT_VERSION or facts.get("fingerprint") != scope.fingerprint:
        return None, "it belongs to other data, another model, or another version of orpo"
    if len(content) != 8 * scope.num:
        return None, f"it has {len(content):,} bytes of {8 * scope.num:,}"
    if hashlib.sha256(content).hexdigest() != facts.get("sha256"):
        return None, "its bytes were changed after it was written"
    return np.frombuffer(content, dtype="<f8").astype(np.float64), ""


def write_table(path: Path, scope: Scope, totals: Numbers) -> None:
    """Nothing; `path` holds `totals` behind one line that says of what and with which checksum, whole or not at all."""
    content = totals.astype("<f8", copy=False).tobytes()
    header = {"format_version": FORMAT_VERSION, "fingerprint": scope.fingerprint, "sha256": hashlib.sha256(content).hexdigest()}
    with storage_errors(path.parent, "keeping reference log-probs"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, canonical(header) + b"\n" + content)


def _made(examples: Examples, scope: Scope, score: Totals, device: str) -> Numbers:
    """The totals of all completions, fp64 [scope.num]. Each rank scores every so many batches; what others score it leaves 0."""
    is_shared = torch.distributed.is_initialized()
    rank, num_ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if is_shared else (0, 1)
    totals = torch.zeros(scope.num, dtype=torch.float64)
    position = 0
    for number, batch in enumerate(in_order((examples[index] for index in range(len(examples))), TOKENS_AT_ONCE)):
        last = position + len(batch)
        if number % num_ranks == rank:
            totals[scope.first[position] : scope.first[last]] = score(batch, range(position, last)).cpu()
        position = last
    if is_shared:
        shared = totals.to(device)
        torch.distributed.all_reduce(shared)
        totals = shared.cpu()
    return totals.numpy()

"""What an objective reads beside the policy, for a run that is about to train: its reference, in the way the settings ask for, and the
mismatched pairs of its baseline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from orpo.core.tokens import Examples
from orpo.engine.paths import Path as EnginePath
from orpo.engine.sharded import shard
from orpo.objectives import catalogue
from orpo.pipeline.prepare import Prepared
from orpo.pipeline.run_data import is_scored, reads_of
from orpo.training import models
from orpo.training.assemble import head_bytes
from orpo.training.beside import Beside, MismatchedPairs
from orpo.training.config_fields import reference_way
from orpo.training.mismatched import mismatched_in_steps, mismatched_once
from orpo.training.reference_table import table_totals
from orpo.training.references import References, Totals, live_totals

Say = Callable[[str], None]


def beside_of(
    prepared: Prepared, body: Any, path: EnginePath, *, run_dir: Path, is_resumed: bool, say: Say, spent: Callable[[float], None]
) -> Beside:
    """What the objective of `prepared` reads beside the log-probs of `body`. The same bits after a resume.

    `spent` is told the seconds that it took to make the reference of what is trained on ready; that of held-out pairs is no such cost.
    """
    name = prepared.config.objective
    reads = reads_of(name)
    if not catalogue.needs_reference(name):
        return Beside(reads, is_scored=is_scored(name), chosen_alone=catalogue.learns_chosen_alone(name))
    mismatched = _mismatched(prepared, body, path) if catalogue.needs_baseline(name) else None
    way = reference_way(prepared.config)
    if way == "precomputed":
        tables = _tables(prepared, body, path, mismatched, run_dir=run_dir, is_resumed=is_resumed, say=say, spent=spent)
        return Beside(reads, tables, mismatched)
    if way == "adapter":
        say("reference    the model with its adapters off")
        return Beside(reads, References.live(_live(prepared, body, path, adapters=False)), mismatched)
    say("reference    a frozen copy of the model, kept in memory")
    with _timed(spent):
        copy = base_body(prepared, prepared.precision.dtype)
        if prepared.config.sharding == "fsdp":
            shard(copy, dtype=prepared.precision.dtype)
    return Beside(reads, References.live(_live(prepared, copy, path)), mismatched)


def base_body(prepared: Prepared, dtype: torch.dtype) -> Any:
    """The model that training starts from, frozen, in `dtype`, on its device: the base with its seeded rows of new tokens."""
    source = models.located(str(prepared.config.model))
    body = models.load_model(source, dtype=dtype, load_in_4bit=prepared.config.load_in_4bit)
    models.add_token_rows(body, len(prepared.tokenizer), prepared.new_token_ids, seed=prepared.config.seed)
    return body.to("cuda" if torch.cuda.is_available() else "cpu").eval().requires_grad_(False)


def _live(prepared: Prepared, body: Any, path: EnginePath, *, adapters: bool = True) -> Totals:
    chunk_bytes = head_bytes(body, max(prepared.lengths))
    return live_totals(body, path=path, dtype=prepared.precision.dtype, adapters=adapters, chunk_bytes=chunk_bytes)


def _mismatched(prepared: Prepared, body: Any, path: EnginePath) -> MismatchedPairs:
    config, held_out, longest = prepared.config, prepared.held_out, prepared.longest_row()
    train = mismatched_in_steps(
        prepared.store,
        pairs_per_step=config.pairs_per_step,
        seed=config.seed,
        num_steps=prepared.plan.max_steps,
        longest=longest,
    )
    held = mismatched_once(held_out, seed=config.seed, longest=longest) if held_out is not None else None
    return MismatchedPairs(_live(prepared, body, path), train, held)


@contextmanager
def _timed(spent: Callable[[float], None]) -> Iterator[None]:
    started = time.monotonic()
    yield
    spent(time.monotonic() - started)


def _tables(
    prepared: Prepared,
    body: Any,
    path: EnginePath,
    mismatched: MismatchedPairs | None,
    *,
    run_dir: Path,
    is_resumed: bool,
    say: Say,
    spent: Callable[[float], None],
) -> References:
    """Tables of all that the run reads. Where one has to be made, the policy scores it while it still is the model it starts from."""
    config = prepared.config
    folder = Path(config.reference_cache).expanduser() if config.reference_cache else run_dir
    device = next(body.parameters()).device.type

    @cache
    def score() -> Totals:
        if config.use_peft:
            return _live(prepared, body, path, adapters=False)
        return _live(prepared, base_body(prepared, torch.float32) if is_resumed else body, path)

    def table(examples: Examples | None) -> Totals:
        if examples is None:
            return _never
        return table_totals(examples, folder=folder, facts=table_facts(prepared, path, device), score=score, device=device, say=say)

    with _timed(spent):
        train, mismatched_train = table(prepared.store), table(mismatched.train if mismatched else None)
    return References(
        train=train,
        held_out=table(prepared.held_out),
        mismatched=mismatched_train,
        held_out_mismatched=table(mismatched.held_out if mismatched else None),
    )


def table_facts(prepared: Prepared, path: EnginePath, device: str) -> Mapping[str, Any]:
    """What the numbers of a table follow from beside the tokens it is of."""
    return {
        "weights": prepared.identity.base_model.weights_sha256,
        "new_token_rows": [prepared.config.seed, list(prepared.new_token_ids)] if prepared.new_token_ids else [],
        "weights_dtype": str(prepared.precision.dtype if prepared.config.use_peft else torch.float32),
        **({"load_in_4bit": True} if prepared.config.load_in_4bit else {}),
        "dtype": str(prepared.precision.dtype),
        "path": str(path),
        "device": device,
    }


def _never(*_: Any) -> Any:
    raise AssertionError("this run reads no such reference")

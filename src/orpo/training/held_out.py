"""Each held-out pair by itself: examples and their log-probs enter, its figures leave; held_out.jsonl keeps the first and the last ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from orpo.core.logps import PairLogps, PairScores
from orpo.core.tokens import TokenizedExample
from orpo.engine.views import Logps
from orpo.runs.atomic import write_text_atomic
from orpo.runs.jsontext import to_text
from orpo.runs.metrics import Row, read_metrics
from orpo.runs.names import HELD_OUT
from orpo.runs.redact import redact
from orpo.training.ranks import gathered, is_first


class PairFigures(NamedTuple):
    """One held-out pair: its number, its place, its lengths in tokens, and the mean log p (or the score) of both answers."""

    pair: int
    source: str
    prompt_tokens: int
    chosen_tokens: int
    rejected_tokens: int
    chosen: float
    rejected: float


Seen = Callable[[int, Sequence[PairFigures]], None]
"""(step, figures of the pairs that this rank evaluated): called on every rank after each evaluation."""


def unseen(step: int, figures: Sequence[PairFigures]) -> None:
    """Nothing: for a trainer that keeps no figures of single pairs."""


def pair_figures(examples: Sequence[TokenizedExample], pairs: Sequence[int], logps: Logps) -> list[PairFigures]:
    """The figures of each of `examples`, the held-out `pairs` by number; none where the objective reads labelled answers or rankings."""
    if isinstance(logps, PairLogps):
        sides = logps.chosen.mean, logps.rejected.mean
    elif isinstance(logps, PairScores):
        sides = logps.chosen, logps.rejected
    else:
        return []
    values = zip(*(side.double().tolist() for side in sides), strict=True)
    return [
        PairFigures(pair, str(example.source), len(example.prompt_ids), *map(len, example.completions), chosen, rejected)
        for pair, example, (chosen, rejected) in zip(pairs, examples, values, strict=True)
    ]


def held_out_recorder(run_dir: Path) -> Seen:
    """A function that writes held_out.jsonl after each evaluation: of each pair what was measured at step 0, and what was measured last."""

    def seen(step: int, figures: Sequence[PairFigures]) -> None:
        every = gathered(figures)
        if every and is_first():
            _write(run_dir / HELD_OUT, step, sorted(every))

    return seen


def _write(path: Path, step: int, figures: Sequence[PairFigures]) -> None:
    earlier = {(row["pair"], row["source"]): row["before"] for row in read_metrics(path)} if step and path.exists() else {}
    rows = [_row(step, one, earlier.get((one.pair, one.source))) for one in figures]
    write_text_atomic(path, "".join(to_text(redact(row)) + "\n" for row in rows))


def _row(step: int, figures: PairFigures, before: Row | None) -> Row:
    values = {"chosen": figures.chosen, "rejected": figures.rejected}
    lengths = {name: getattr(figures, name) for name in ("prompt_tokens", "chosen_tokens", "rejected_tokens")}
    place = {"step": step, "pair": figures.pair, "source": figures.source}
    return {**place, **lengths, "before": before if step else values, "after": values if step else None}

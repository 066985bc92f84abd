"""Each held-out pair by itself: examples and their log-probs enter, its figures leave; held_out.jsonl keeps the first and the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import transformers

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


def pair_figures(examples: Sequence[TokenizedExample], pairs: Sequence[int], logps: Logps) -> list[PairFigures]:
    """The figures of each of `examples`, the held-out `pairs` by number; none where the objective reads labelled answers or rankings."""
    if isinstance(logps, PairLogps):
        sides = logps.chosen.mean, logps.rejected.mean
    elif isinstance(logps, PairScores):
        sides = logps.chosen, logps.rejected
    else:
        return []
    values = zip(*(side.double().tolist() for side in sides), strict=True)
    return [_figures(pair, example, *means) for pair, example, means in zip(pairs, examples, values, strict=True)]


def _figures(pair: int, example: TokenizedExample, chosen: float, rejected: float) -> PairFigures:
    first, second = example.completions
    return PairFigures(pair, str(example.source), len(example.prompt_ids), len(first), len(second), chosen, rejected)


class HeldOutCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Writes held_out.jsonl after each evaluation: of each pair what was measured at step 0, and what was measured last.

    It listens to the model: what comes out of it in evaluation mode are the held-out pairs, in their order.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / HELD_OUT
        self.figures: list[PairFigures] = []
        self.num = 0
        self.hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Called by the Trainer before the first evaluation, on every rank: each has every `world_size`-th pair."""

        def heard(module: Any, given: tuple[Any, ...], logps: Any) -> None:
            if not module.training:
                first, step = args.process_index + args.world_size * self.num, args.world_size
                self.num += len(given[0])
                self.figures += pair_figures(given[0], range(first, first + step * len(given[0]), step), logps)

        self.hook = model.register_forward_hook(heard)

    def on_evaluate(self, args: Any, state: transformers.TrainerState, control: Any, **_: Any) -> None:
        """Called by the Trainer on every rank after each evaluation."""
        every = gathered(self.figures)
        self.figures, self.num = [], 0
        if every and is_first():
            _write(self.path, state.global_step, sorted(every))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer after the last step."""
        self.hook.remove()


def _write(path: Path, step: int, figures: Sequence[PairFigures]) -> None:
    earlier = {(row["pair"], row["source"]): row["before"] for row in read_metrics(path)} if step and path.exists() else {}
    rows = [_row(step, one, earlier.get((one.pair, one.source))) for one in figures]
    write_text_atomic(path, "".join(to_text(redact(row)) + "\n" for row in rows))


def _row(step: int, figures: PairFigures, before: Row | None) -> Row:
    values = {"chosen": figures.chosen, "rejected": figures.rejected}
    lengths = {name: getattr(figures, name) for name in ("prompt_tokens", "chosen_tokens", "rejected_tokens")}
    place = {"step": step, "pair": figures.pair, "source": figures.source}
    return {**place, **lengths, "before": before if step else values, "after": values if step else None}

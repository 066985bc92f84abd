"""The rivals of ORPO, by our trainer and by TRL's, on the same weights and pairs: DPO, IPO and KTO beside a reference, and a reward model.

The reference is the model with noise on its weights. A plain copy, as a run starts with, would give ln 2 as the first loss of DPO whatever
the log-probs, and the comparison of first losses would show nothing.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from contenders import BETA, Contender, Setup, in_run_order, our_trainer
from orpo.core.tokens import TokenizedExample
from pair_data import longest_row
from trl_peers import prepared_trainer

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "dpo": {"beta": BETA},
    "ipo": {"tau": BETA, "logps": "mean"},  # TRL divides by the answer's tokens
    "kto": {"beta": BETA},
    "reward": {},
}
"""Rival -> the options of our objective that make it TRL's."""

READ_REFERENCE = ("dpo", "ipo", "kto")
REFERENCES = ("live", "precomputed")
CASES = (*((objective, reference) for objective in READ_REFERENCE for reference in REFERENCES), ("reward", ""))
"""Every rival with every way to its reference."""

NOISE = 0.02
"""Standard deviation of what tells the reference from the policy: that of the random weights themselves."""


def case_name(objective: str, reference: str) -> str:
    """How a case is called in options and tables: dpo-live, reward."""
    return f"{objective}-{reference}" if reference else objective


def extra_forwards(objective: str, reference: str) -> int:
    """Forward passes of a step over its tokens beside the one that is differentiated: by a live reference, and for the baseline of KTO by
    the policy and by a live reference over as many tokens again."""
    return (reference == "live") + (objective == "kto") * (1 + (reference == "live"))


def rival_facts(objective: str, reference: str) -> dict[str, str]:
    """What is the same on both sides because they train this rival."""
    facts = {"objective": objective}
    if objective == "kto":
        facts["answers"] = "chosen and rejected are two labelled answers; the baseline is measured on the same mismatched answers"
    if reference:
        facts["reference"] = "the model with noise on its weights, so that the first losses depend on all log-probs; " + _WAYS[reference]
    return facts


_WAYS = {
    "live": "a frozen copy in the dtype of products scores every step, inside the clock",
    "precomputed": "its log-probs are made once, before the first step, outside the clock",
}


def our_rival(body: Any, which: Contender, setup: Setup, run_dir: Path) -> tuple[Any, float | None]:
    """Our trainer on `body`, and the seconds of the pass that made its table of reference log-probs (None where there is none)."""
    import torch

    from orpo.engine.scores import choose_score_path
    from orpo.engine.startup_check import choose_path
    from orpo.objectives import bound, catalogue
    from orpo.training.beside import Beside

    objective, is_scored = setup.objective, catalogue.reads(setup.objective) == "scores"
    choose = choose_score_path if is_scored else choose_path
    path = choose(body, longest=longest_row(setup.steps.pairs), dtype=getattr(torch, setup.dtype)).path
    store = in_run_order(replace(setup.steps, pairs=as_read(objective, setup.steps.pairs)), setup.seed)
    beside, seconds = (Beside(is_scored=is_scored), None) if not setup.reference else _beside(body, setup, run_dir, path=path, store=store)
    wiring = {"path": path, "objective": bound(objective, OPTIONS[objective]), "store": store, "beside": beside}
    return our_trainer(body, which, setup, run_dir, **wiring), seconds


def trl_rival(body: Any, which: Contender, setup: Setup, run_dir: Path) -> tuple[Any, float | None]:
    """TRL's trainer on `body`, and the seconds of its own pass for reference log-probs."""
    os.environ["TQDM_DISABLE"] = "1"
    frozen = frozen_reference(body, setup) if setup.reference == "live" else None
    trainer = prepared_trainer(body, which, setup, run_dir, rows=rival_rows(setup), ref_model=frozen)
    if setup.reference != "precomputed":
        return trainer, None
    with as_reference(body, setup.seed):
        start = time.perf_counter()
        trainer.train_dataset = trainer._precompute_ref_logps(trainer.train_dataset, "train", trainer.args.per_device_train_batch_size)
        seconds = time.perf_counter() - start
    return trainer, seconds


def as_read(objective: str, pairs: Sequence[TokenizedExample]) -> tuple[TokenizedExample, ...]:
    """The pairs as `objective` reads them: for KTO the chosen is a desirable answer and the rejected an undesirable one."""
    return tuple(replace(pair, labels=(True, False)) for pair in pairs) if objective == "kto" else tuple(pairs)


def _beside(body: Any, setup: Setup, run_dir: Path, *, path: Any, store: Sequence[TokenizedExample]) -> tuple[Any, float | None]:
    """What our objective reads beside the policy's log-probs, wired as `orpo train` wires it; and the seconds its table took."""
    import torch

    from orpo.objectives import catalogue
    from orpo.training.assemble import head_bytes
    from orpo.training.beside import Beside, MismatchedPairs
    from orpo.training.references import References, live_totals

    how = {"path": path, "dtype": getattr(torch, setup.dtype), "chunk_bytes": head_bytes(body, max(e.num_tokens for e in store))}
    policy, mismatched = live_totals(body, **how), None
    if catalogue.needs_baseline(setup.objective):
        mismatched = MismatchedPairs(policy, mismatched_pairs(store, setup), None)
    reads = catalogue.reads(setup.objective)
    if setup.reference == "live":
        return Beside(reads, References.live(live_totals(frozen_reference(body, setup), **how)), mismatched), None
    with as_reference(body, setup.seed):
        start = time.perf_counter()
        references = _tables(store, mismatched.train if mismatched else None, policy, run_dir, device=setup.device)
        seconds = time.perf_counter() - start
    return Beside(reads, references, mismatched), seconds


def _tables(store: Sequence[TokenizedExample], mismatched: Any, score: Any, run_dir: Path, *, device: str) -> Any:
    """Reference log-probs made once by `score`, of the training examples and of the mismatched ones."""
    from orpo.training.reference_table import table_totals
    from orpo.training.references import References

    def table(examples: Any) -> Any:
        return table_totals(examples, folder=run_dir, facts={}, score=lambda: score, device=device, say=lambda _: None)

    train = table(store)
    return References(train, train, table(mismatched) if mismatched else train, train)  # nothing is held out


def mismatched_pairs(store: Sequence[TokenizedExample], setup: Setup) -> Any:
    """The prompts of the steps, in order, beside the answers that KTO's baseline is measured on."""
    from orpo.training.mismatched import mismatched_in_steps

    steps = setup.steps
    sizes = {"pairs_per_step": steps.pairs_per_step, "num_steps": steps.num_steps, "longest": longest_row(steps.pairs)}
    return mismatched_in_steps(store, seed=setup.seed, **sizes)


def rival_rows(setup: Setup) -> list[dict[str, Any]]:
    """The pairs of the steps in the columns that TRL's trainer of the objective makes of them."""
    pairs = setup.steps.pairs
    if setup.objective == "kto":
        return _labelled_rows(setup)
    if setup.objective == "reward":
        return [{f"{side}_ids": ids for side, ids in zip(("chosen", "rejected"), _whole_rows(pair), strict=True)} for pair in pairs]
    return [
        {"prompt_ids": pair.prompt_ids.tolist(), "chosen_ids": chosen.tolist(), "rejected_ids": rejected.tolist()}
        for pair in pairs
        for chosen, rejected in [pair.completions]
    ]


def _whole_rows(pair: TokenizedExample) -> list[list[int]]:
    return [pair.prompt_ids.tolist() + ids.tolist() for ids in pair.completions]


def _labelled_rows(setup: Setup) -> list[dict[str, Any]]:
    """Two rows of a pair, each with a mismatched answer of its own.

    TRL moves the answers of a batch on by one, ours are moved on by a seeded number: TRL is given ours, so that both compute the same.
    """
    pairs = as_read("kto", setup.steps.pairs)
    others = mismatched_pairs(in_run_order(replace(setup.steps, pairs=pairs), setup.seed), setup)
    return [
        {"prompt_ids": pair.prompt_ids.tolist(), "completion_ids": own.tolist(), "KL_completion_ids": other.tolist(), "label": label}
        for number, pair in enumerate(pairs)
        for own, other, label in zip(pair.completions, others[number].completions, pair.labels, strict=True)
    ]


def frozen_reference(body: Any, setup: Setup) -> Any:
    """The reference as a model of its own, frozen, in the dtype of products, as a run keeps it."""
    import torch

    frozen = copy.deepcopy(body)
    add_noise(frozen, setup.seed)
    return frozen.to(getattr(torch, setup.dtype)).eval().requires_grad_(False)


@contextmanager
def as_reference(body: Any, seed: int) -> Iterator[None]:
    """Inside, `body` has the weights of the reference; afterwards, to the last bit, its own."""
    kept = [parameter.detach().clone() for parameter in body.parameters()]
    add_noise(body, seed)
    try:
        yield
    finally:
        for parameter, own in zip(body.parameters(), kept, strict=True):
            parameter.data.copy_(own)


def add_noise(body: Any, seed: int) -> None:
    """Nothing; every weight of `body` has moved, the same in every process."""
    import torch

    drawn = torch.Generator().manual_seed(seed + 1)
    for parameter in body.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=drawn).to(parameter), alpha=NOISE)

"""Who runs: our trainer and TRL's, each built as its user gets it, on the same weights, the same pairs, the same optimizer settings.

Here our trainer is built, with ORPO; in trl_peers.py TRL's; in rivals.py both for the rivals of ORPO.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_shapes import ModelShape
from orpo.core.tokens import TokenizedExample
from pair_data import Steps, longest_row

LEARNING_RATE = 5e-6
BETA = 0.1
_NAMES = re.compile(r"(?P<side>orpo|ours|trl-liger|trl)(-tokens(?P<tokens>\d+)|-mb(?P<mb>\d+))?(?P<grouped>-grouped)?")


class UnknownContender(Exception):
    """A name that stands for no contender."""


@dataclass(frozen=True, slots=True)
class Contender:
    """`side` is orpo, trl or trl-liger, or of a rival ours or trl; `micro_batch` pairs (TRL) or `tokens` (ours) at once, None for all of
    a step and for auto."""

    name: str
    side: str
    micro_batch: int | None
    tokens: int | None
    is_grouped: bool

    @property
    def is_ours(self) -> bool:
        """Whether it is our trainer."""
        return self.side in ("orpo", "ours")

    @property
    def missing(self) -> str:
        """Why this contender cannot run here; '' when it can."""
        packages = {"orpo": [], "ours": [], "trl": ["trl"], "trl-liger": ["trl", "liger_kernel"]}[self.side]
        return ", ".join(f"{package} is not installed" for package in packages if importlib.util.find_spec(package) is None)


def contender(name: str, *, objective: str = "orpo") -> Contender:
    """The contender called `name`: orpo, orpo-tokens4096, trl, trl-mb2, trl-grouped, orpo-grouped, trl-liger, trl-liger-mb1.

    Where `objective` is a rival of ORPO our side is called ours (ours-tokens4096, ours-grouped), and there is no trl-liger.
    """
    match = _NAMES.fullmatch(name)
    ours, theirs = ("orpo", ("trl", "trl-liger")) if objective == "orpo" else ("ours", ("trl",))
    if match is None or match["side"] not in (ours, *theirs) or match["mb" if match["side"] == ours else "tokens"]:
        known = [ours, f"{ours}-tokensN", *(form for side in theirs for form in (side, f"{side}-mbN"))]
        raise UnknownContender(f"{name!r} is none of {', '.join(known)}, or one of these -grouped")
    return Contender(
        name, match["side"], int(match["mb"]) if match["mb"] else None, int(match["tokens"] or 0) or None, bool(match["grouped"])
    )


@dataclass(frozen=True, slots=True)
class Setup:
    """What is equal for all contenders. `tokens_per_micro_batch` is ours alone: a number, or 'auto'.

    `reference` is live (a frozen copy scores every step) or precomputed (a table made before), '' for an objective that reads none.
    """

    shape: ModelShape
    dtype: str
    device: str
    nll_over: str
    checkpointing: bool
    seed: int
    steps: Steps
    tokens_per_micro_batch: int | str
    objective: str = "orpo"
    reference: str = ""


def objective_for(nll_over: str) -> Any:
    """Our loss with TRL's beta and its average over tokens; over prompt and completion it is preset trl."""
    from orpo.objectives import bound

    return bound("orpo", {"beta": BETA, "nll_over": nll_over, "nll_average": "token"})


def orpo_trainer(body: Any, which: Contender, setup: Setup, run_dir: Path) -> Any:
    """Our trainer of ORPO on `body`."""
    import torch

    from orpo.engine.startup_check import choose_path

    choice = choose_path(body, longest=longest_row(setup.steps.pairs), dtype=getattr(torch, setup.dtype))
    store = in_run_order(setup.steps, setup.seed)
    return our_trainer(body, which, setup, run_dir, path=choice.path, objective=objective_for(setup.nll_over), store=store)


def our_trainer(
    body: Any,
    which: Contender,
    setup: Setup,
    run_dir: Path,
    *,
    path: Any,
    objective: Any,
    store: Sequence[TokenizedExample],
    beside: Any = None,
) -> Any:
    """Our trainer on `body`, wired as `orpo train` wires it. Only this, orpo_first_loss and rivals.py know how the package is made up."""
    import torch

    from orpo.engine.precision import Precision
    from orpo.training.assemble import build_trainer, enable_checkpointing, plan, training_arguments
    from orpo.training.config import TrainConfig
    from orpo.training.guards import FiniteGuard, SignalCallback, StopSignals

    lengths = [example.num_tokens for example in store]
    config = TrainConfig(
        objective=setup.objective,
        pairs_per_step=setup.steps.pairs_per_step,
        max_steps=setup.steps.num_steps,
        learning_rate=LEARNING_RATE,
        tokens_per_micro_batch=which.tokens or setup.tokens_per_micro_batch,
        dtype=setup.dtype,
        use_peft=setup.shape.lora,
        seed=setup.seed,
        logging_steps=1,
    )
    run_plan = plan(config, lengths)
    precision = Precision(getattr(torch, setup.dtype), "as asked")
    if setup.checkpointing:
        enable_checkpointing(body)
    arguments = training_arguments(config, run_plan, run_dir=run_dir, precision=precision, has_held_out=False, is_resumed=False)
    if setup.device == "cpu":
        arguments.use_cpu = True
    return build_trainer(
        body,
        arguments,
        path=path,
        objective=objective,
        run_plan=run_plan,
        seed=setup.seed,
        store=store,
        lengths=lengths,
        held_out=None,
        beside=beside,
        guard=FiniteGuard(lambda _: "nowhere"),
        save=lambda _: run_dir,
        callbacks=[SignalCallback(StopSignals(print))],
    )


def orpo_first_loss(trainer: Any, setup: Setup) -> float:
    """Our loss of the first step under preset trl, with the weights as they were made: what TRL's first loss is held against."""
    import torch

    from orpo.core.loss import step_loss
    from orpo.core.tokens import unit_counts

    examples = setup.steps.pairs[: setup.steps.pairs_per_step]
    counts, objective, model = unit_counts(examples), objective_for("prompt+completion"), trainer.model
    was = model.with_prompt
    model.with_prompt = True  # a run over the completion alone leaves the prompt's own log-probs out
    with torch.no_grad():
        # One pair at a time takes less memory than the step itself, so the peak is not touched.
        loss = float(sum(step_loss(objective(model([example])), counts) for example in examples))
    model.with_prompt = was
    return loss


def in_run_order(steps: Steps, seed: int) -> list[TokenizedExample]:
    """The pairs laid out so that a run with `seed`, which shuffles, meets them in the order of `steps`."""
    from orpo.engine.batching import step_pairs

    positions = [i for step in range(steps.num_steps) for i in step_pairs(len(steps.pairs), steps.pairs_per_step, seed=seed, step=step)]
    laid_out = dict(zip(positions, steps.pairs, strict=True))
    return [laid_out[position] for position in range(len(steps.pairs))]

"""No penalty in cross-entropy: the gradient at the logits of tokens that only the rejected answer has, by SFT and by ORPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from evidence.claims import Claim, Verdict
from evidence.lab import Lab
from evidence.pictures import INK, SOFT, panels
from evidence.records import Record
from evidence.replies import built_in_body, held_out_examples
from orpo.core.logps import CompletionLogps, PairLogps
from orpo.core.loss import Loss
from orpo.core.tokens import TokenIds, TokenizedExample
from orpo.objectives.orpo import orpo
from orpo.objectives.sft import sft

TITLE = "No penalty in cross-entropy (section 3)"
NUM_PAIRS = 120
WEIGHT = 1.0
PLACES = {
    "chosen": "the chosen answer's next token, where it stands",
    "elsewhere": "a rejected-only token, along the chosen answer",
    "rejected": "a rejected-only token, where the rejected answer says it",
}
OBJECTIVES: Mapping[str, Callable[[PairLogps], Loss]] = {"sft": sft, "orpo": lambda policy: orpo(policy, beta=WEIGHT)}


def record(lab: Lab, *, num_pairs: int = NUM_PAIRS) -> dict[str, Any]:
    """The push on the logits at each of PLACES, over held-out pairs under the built-in base model."""
    content: dict[str, Any] = lab.once("no-penalty", {"pairs": num_pairs}, lambda _: _measured(num_pairs))[0]
    return content


def _measured(num_pairs: int) -> dict[str, Any]:
    model = built_in_body().double()
    examples = held_out_examples(1)[:num_pairs]
    found: dict[str, dict[str, list[float]]] = {name: {place: [] for place in PLACES} for name in OBJECTIVES}
    shares = [share for example in examples for share in _pair(model, example, found)]
    return {
        "seeds": [1],
        "num_pairs": len(examples),
        "pushes": {name: {place: _summary(values) for place, values in places.items()} for name, places in found.items()},
        "sft_elsewhere_over_p": {"least": min(shares), "most": max(shares)},
    }


def _pair(model: Any, example: TokenizedExample, found: Mapping[str, Mapping[str, list[float]]]) -> list[float]:
    """SFT's gradient over p / m for each rejected-only token along the chosen answer; the pushes of one pair are added to `found`.

    A push is minus the gradient of the pair's loss: positive makes a token likelier.
    """
    logits = [_logits(model, example.prompt_ids, completion) for completion in example.completions]
    tokens = [torch.from_numpy(completion.astype(np.int64)) for completion in example.completions]
    only = sorted(set(tokens[1].tolist()) - set(tokens[0].tolist()))
    says = [place for place, token in enumerate(tokens[1].tolist()) if token in only]
    shares: list[float] = []
    for name, objective in OBJECTIVES.items():
        chosen, rejected = _pushes(objective, logits, tokens)
        found[name]["chosen"] += chosen.gather(1, tokens[0][:, None]).flatten().tolist()
        found[name]["elsewhere"] += chosen[:, only].flatten().tolist()
        found[name]["rejected"] += rejected[says, tokens[1][says]].tolist()
        if name == "sft":
            shares = (-chosen[:, only] * len(tokens[0]) / logits[0].softmax(1)[:, only]).flatten().tolist()
    return shares


def _logits(model: Any, prompt: TokenIds, completion: TokenIds) -> Tensor:
    """The logits that predict each token of `completion`, fp64 [m, V]."""
    row = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    with torch.no_grad():
        logits: Tensor = model(input_ids=row[None]).logits[0, len(prompt) - 1 : -1]
    return logits


def _pushes(objective: Callable[[PairLogps], Loss], logits: Sequence[Tensor], tokens: Sequence[Tensor]) -> list[Tensor]:
    """Minus the gradient of the pair's loss at the logits of both answers; zeros where the loss does not read them."""
    leaves = [side.clone().requires_grad_() for side in logits]
    sides = [
        CompletionLogps(leaf.log_softmax(1).gather(1, ids[:, None]).sum()[None], torch.tensor([len(ids)]))
        for leaf, ids in zip(leaves, tokens, strict=True)
    ]
    loss = objective(PairLogps(sides[0], sides[1], None))
    counts = {"pairs": 1, "chosen_tokens": len(tokens[0])}
    total = torch.stack([term.weight * term.total / counts[term.unit] for term in loss.terms]).sum()
    grads = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else -grad for grad, leaf in zip(grads, leaves, strict=True)]


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "least": min(values), "most": max(values), "num": len(values)}


def verdict(sft_pushes: Record, orpo_pushes: Record) -> Verdict:
    """Shown where SFT's push where the rejected answer speaks is exactly 0 and each of ORPO's is down; opposite where each is up."""
    if sft_pushes["least"] or sft_pushes["most"]:
        return "not shown"
    if orpo_pushes["most"] < 0:
        return "shown"
    return "opposite" if orpo_pushes["least"] > 0 else "not shown"


def claims(content: Record) -> tuple[Claim, ...]:
    """That cross-entropy says nothing against a rejected answer."""
    there = {name: content["pushes"][name]["rejected"] for name in OBJECTIVES}
    exactly = "exactly 0" if there["sft"]["least"] == there["sft"]["most"] == 0 else _spelled(there["sft"]["mean"])
    figure = f"push on {there['sft']['num']:,} tokens: SFT {exactly}, ORPO {_spelled(there['orpo']['mean'])} on average"
    return (
        Claim(
            "Cross-entropy has no term against tokens of the rejected answer; the odds ratio has",
            "sec. 3, 4",
            "SFT's gradient is exactly 0 at each rejected-only token where the rejected answer says it, and ORPO pushes each one down",
            verdict(there["sft"], there["orpo"]),
            figure,
        ),
    )


def _spelled(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−") if value else "0"


def lines(content: Record) -> list[str]:
    """The table of places, and what softmax does along the chosen answer."""
    pushes, share = content["pushes"], content["sft_elsewhere_over_p"]
    rows = []
    for place, text in PLACES.items():
        means = " | ".join(_spelled(pushes[name][place]["mean"]) for name in OBJECTIVES)
        rows.append(f"| {text} | {pushes['sft'][place]['num']:,} | {means} |")
    return [
        f"| mean push on the logit (minus the gradient of a pair's loss) of | tokens | SFT | ORPO, weight {WEIGHT:g} |",
        "|---|---|---|---|",
        *rows,
        "",
        "Along the chosen answer softmax pushes every other token down by p/m, whether the rejected answer has it or not: SFT's push is",
        f"that to within {max(1 - share['least'], share['most'] - 1):.0e} of itself, for all of them. {content['num_pairs']} held-out "
        "pairs under the base model, fp64.",
    ]


def picture(content: Record) -> Figure:
    """The pushes as bars, ORPO beside SFT."""
    figure, (axis,) = panels(1, height=2.3)
    for row, place in enumerate(PLACES):
        for objective, shift, colour in (("sft", -0.19, "#7a6a00"), ("orpo", 0.19, "#00639c")):
            value = content["pushes"][objective][place]["mean"]
            axis.barh(row + shift, value, height=0.34, color=colour)
            side = -1 if value < 0 else 1
            text = f"{'SFT' if objective == 'sft' else 'ORPO'} {_spelled(value)}"
            axis.annotate(
                text,
                (value, row + shift),
                xytext=(4 * side, 0),
                textcoords="offset points",
                va="center",
                ha="right" if value < 0 else "left",
                fontsize=8.5,
                color=INK,
            )
    axis.set_yticks(range(len(PLACES)), [text.replace(", ", ",\n") for text in PLACES.values()])
    axis.invert_yaxis()
    axis.axvline(0, color=SOFT, linewidth=0.8)
    axis.margins(x=0.3)
    axis.grid(visible=False)
    axis.set_title("mean push on a logit: right makes the token likelier")
    return figure


ALT = "Bars: both objectives push the chosen tokens up; only ORPO pushes tokens of the rejected answer down where it says them"

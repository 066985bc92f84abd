"""The gradient of the odds ratio loss: autograd against the closed form, the sign that the paper prints, and the factor 1/(1 - P)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from evidence.claims import Claim, Verdict
from evidence.lab import Lab
from evidence.pictures import COLOURS, panels
from evidence.records import Record
from orpo.core.logps import CompletionLogps, PairLogps
from orpo.objectives.orpo import odds_ratio
from orpo.objectives.stable import log_odds

TITLE = "The gradient (equations 7 to 10)"
NUM_CASES = 500
VOCABULARY = 13
CLOSE = 1e-9
PROBABILITIES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def record(lab: Lab, *, num_cases: int = NUM_CASES) -> dict[str, Any]:
    """How far autograd and the closed form are apart over random logits, and the factor over P."""
    content: dict[str, Any] = lab.once("gradient", {"cases": num_cases}, lambda _: _measured(num_cases))[0]
    return content


def _measured(num_cases: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    apart = [_apart(*_case(generator)) for _ in range(num_cases)]
    factors = [_factor(probability) for probability in PROBABILITIES]
    return {
        "seeds": [0],
        "num_cases": num_cases,
        "minus": max(minus for minus, _ in apart),
        "plus": min(plus for _, plus in apart),
        "factors": {"P": PROBABILITIES, "autograd": factors},
    }


def _case(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random logits and tokens of a chosen and of a rejected answer of 1 to 12 tokens, fp64; some far from uniform."""
    sizes = torch.randint(1, 13, (2,), generator=generator).tolist()
    scale = 4 * torch.rand((), generator=generator, dtype=torch.float64)
    logits = [scale * torch.randn(size, VOCABULARY, generator=generator, dtype=torch.float64) for size in sizes]
    tokens = [torch.randint(0, VOCABULARY, (size,), generator=generator) for size in sizes]
    return logits[0], logits[1], tokens[0], tokens[1]


def _apart(chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor) -> tuple[float, float]:
    """Relative distance of autograd's gradient to -delta h and to +delta h, over the logits of both answers."""
    leaves = [logits.clone().requires_grad_() for logits in (chosen, rejected)]
    sides = [_logps(logits, tokens) for logits, tokens in zip(leaves, (chosen_tokens, rejected_tokens), strict=True)]
    term, _ = odds_ratio(PairLogps(sides[0], sides[1], None), beta=1.0, odds_temperature=1.0)
    by_autograd = torch.cat([grad.flatten() for grad in torch.autograd.grad(term.total, leaves)])
    delta_h = torch.cat([part.flatten() for part in _delta_h(chosen, rejected, chosen_tokens, rejected_tokens)])
    size = by_autograd.norm()
    return float((by_autograd + delta_h).norm() / size), float((by_autograd - delta_h).norm() / size)


def _logps(logits: Tensor, tokens: Tensor) -> CompletionLogps:
    total = logits.log_softmax(1).gather(1, tokens[:, None]).sum()[None]
    return CompletionLogps(total, torch.tensor([len(tokens)]))


def _delta_h(chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """delta h by hand, at the logits of the chosen and of the rejected answer: equations 8 to 10, with

    grad log P = (one-hot - softmax) / m  for the length-averaged P of an answer of m tokens.
    """
    pushes, odds = [], []
    for logits, tokens in ((chosen, chosen_tokens), (rejected, rejected_tokens)):
        softmax = logits.exp() / logits.exp().sum(1, keepdim=True)
        likely = softmax.gather(1, tokens[:, None]).log().mean().exp()
        one_hot = torch.eye(VOCABULARY, dtype=torch.float64)[tokens]
        pushes.append((one_hot - softmax) / len(tokens) / (1 - likely))
        odds.append(likely / (1 - likely))
    delta = 1 / (1 + odds[0] / odds[1])
    return delta * pushes[0], -delta * pushes[1]


def _factor(probability: float) -> float:
    """d log odds / d log P at P, by autograd."""
    mean = torch.tensor(probability, dtype=torch.float64).log().requires_grad_()
    return float(torch.autograd.grad(log_odds(mean), mean)[0])


def sign_verdict(*, minus: float, plus: float) -> Verdict:
    """Whether the gradient is +delta h, as printed: opposite where it is -delta h; both are relative distances."""
    if plus <= CLOSE:
        return "shown"
    return "opposite" if minus <= CLOSE else "not shown"


def factor_verdict(factors: list[float]) -> Verdict:
    """Whether the factor falls as P rises, as the text says; `factors` go from small P to large."""
    steps = [later - earlier for earlier, later in pairwise(factors)]
    if all(step < 0 for step in steps):
        return "shown"
    return "opposite" if all(step > 0 for step in steps) else "not shown"


def claims(content: Record) -> tuple[Claim, ...]:
    """The closed form, its sign, and what the factor amplifies."""
    nearest = min(content["minus"], content["plus"])
    factors = content["factors"]["autograd"]
    return (
        Claim(
            "The gradient has the closed form delta times h, up to its sign",
            "eq. 8–10",
            f"autograd and closed form are at most {CLOSE:g} apart, relatively, in each case",
            "shown" if nearest <= CLOSE else "not shown",
            f"at most {nearest:.1e} apart in {content['num_cases']} cases",
        ),
        Claim(
            "The gradient is +delta h, as printed",
            "eq. 8",
            f"shown where autograd is +delta h (to {CLOSE:g}), opposite where it is −delta h",
            sign_verdict(minus=content["minus"], plus=content["plus"]),
            f"{content['minus']:.1e} from −delta h, at least {content['plus']:.2g} from +delta h",
        ),
        Claim(
            "The factor 1/(1 − P) amplifies where P is low, as the text says",
            "eq. 10",
            "shown where the factor falls as P rises, opposite where it rises",
            factor_verdict(factors),
            f"{factors[0]:.2f} at P = {PROBABILITIES[0]}, {factors[-1]:.0f} at P = {PROBABILITIES[-1]}",
        ),
    )


def lines(content: Record) -> list[str]:
    """What the two slips mean for a reader of the paper."""
    return [
        "L_OR is minus a log sigmoid, so its gradient is −delta h; the printed sign is a slip that code does not see. The factor 1/(1 − P)",
        f"is near 1 for an unlikely answer and large for a likely one, {content['factors']['autograd'][-1]:.0f} at the right end: a "
        "rejected answer that the model is sure of is pushed hardest.",
    ]


def picture(content: Record) -> Figure:
    """The factor over P."""
    figure, (axis,) = panels(1, height=2.3)
    along = np.linspace(0.01, 0.96, 200)
    axis.plot(along, 1 / (1 - along), color=COLOURS["orpo"], linewidth=1.6)
    axis.plot(content["factors"]["P"], content["factors"]["autograd"], "o", color=COLOURS["orpo"], markersize=5)
    axis.set(
        title="1/(1 − P), the factor on the gradient of log P; dots by autograd", xlabel="P, the length-averaged probability of an answer"
    )
    axis.set_ylim(bottom=0)
    return figure


ALT = "The factor 1/(1 - P) rises from 1 at small P to 20 at P = 0.95"

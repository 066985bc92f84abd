"""What an objective learns from each part of a row, found by asking it: made-up log-probs enter, the signs of its gradient leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from orpo.core.logps import CompletionLogps, LabelledLogps, PairLogps, PairScores, RankedLogps
from orpo.core.loss import Term
from orpo.data.preview import Learned
from orpo.errors import ConfigError
from orpo.objectives import catalogue

NLL = "nll"
Totals = dict[str, Tensor]


def learned_parts(objective: str, options: Mapping[str, object]) -> dict[str, Learned]:
    """Part of a row -> what `objective` with these options learns from its tokens. Raises ConfigError for an option that cannot be.

    Parts are those of `preview`: 'prompt', 'chosen', 'rejected'; 'desirable', 'undesirable'; 'best', 'between', 'last' of a ranking.
    The objective is evaluated on one made-up row, so what is said holds for every objective and preset, and cannot fall behind them.
    """
    loss = catalogue.bound(objective, options)
    reads = catalogue.reads(objective)
    totals = {part: torch.tensor([-4.0], dtype=torch.float64, requires_grad=True) for part in _PARTS[reads]}
    others = {part: torch.tensor([-4.5], dtype=torch.float64) for part in totals}
    given: list[Any] = [_made_up(reads, totals)]
    if catalogue.needs_reference(objective):
        given.append(_made_up(reads, others))
    if catalogue.needs_baseline(objective):
        given.append(torch.zeros((), dtype=torch.float64))
    signs = {term.name: _signs(term, totals) for term in loss(*given).terms}
    return {part: _learned(part, {name: found[part] for name, found in signs.items()}, reads=reads) for part in totals}


def preset_options(objective: str, preset: str | None) -> dict[str, object]:
    """The options of the objective that a preset sets; none for None. Raises ConfigError for a preset that the objective does not have."""
    if preset is None:
        return {}
    if preset not in catalogue.PRESETS or objective != "orpo":
        problem = f"there is no preset {preset!r}" if preset not in catalogue.PRESETS else f"presets are those of orpo, not of {objective}"
        raise ConfigError(problem, expected=f"one of {', '.join(catalogue.PRESETS)}, with --objective orpo", fix="leave --preset out")
    names = {option.name for option in catalogue.objective_options(objective)}
    return {name: value for name, value in catalogue.PRESETS[preset].items() if name in names}


_PARTS: Mapping[str, tuple[str, ...]] = {
    "pairs": ("prompt", "chosen", "rejected"),
    "scores": ("prompt", "chosen", "rejected"),
    "labelled": ("prompt", "desirable", "undesirable"),
    "rankings": ("prompt", "best", "between", "last"),
}


def _made_up(reads: str, totals: Totals) -> Any:
    """One row of log-probs, of four tokens a part."""
    four = torch.full((1,), 4.0, dtype=torch.float64)
    if reads == "pairs":
        return PairLogps(*(CompletionLogps(totals[part], four) for part in ("chosen", "rejected", "prompt")))
    if reads == "scores":
        return PairScores(totals["chosen"], totals["rejected"])
    if reads == "labelled":
        answers = torch.cat([totals["desirable"], totals["undesirable"]])
        return LabelledLogps(CompletionLogps(answers, four.repeat(2)), torch.tensor([True, False]))
    answers = torch.stack([totals[part][0] for part in ("best", "between", "last")])[None]
    return RankedLogps(CompletionLogps(answers, four.repeat(3)[None]), torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64))


def _signs(term: Term, totals: Totals) -> dict[str, int]:
    """Part -> 1 where a step raises its log-prob for this term, -1 where it lowers it, 0 where the term does not read it."""
    weighted = term.weight * term.total
    if not weighted.requires_grad:
        return dict.fromkeys(totals, 0)
    gradients = torch.autograd.grad(weighted, list(totals.values()), allow_unused=True)
    return {part: 0 if gradient is None else -int(torch.sign(gradient).item()) for part, gradient in zip(totals, gradients, strict=True)}


def _learned(part: str, signs: Mapping[str, int], *, reads: str) -> Learned:
    """The marks and the words for a part, from the sign that each term has for it."""
    pulls = {name: sign for name, sign in signs.items() if sign and name != NLL}
    has_nll = signs.get(NLL, 0) > 0
    # Of a ranking, an answer between the best and the last is raised over those below it and lowered under those above it.
    mark = " " if not pulls else "±" if part == "between" else "+" if max(pulls.values()) > 0 else "-"
    terms = " and ".join(["the NLL"] * has_nll + [f"the {name.replace('_', ' ')} term" for name in pulls])
    if not terms:
        return Learned()
    verb = {"-": "lowered", "±": "raised and lowered"}.get(mark, "raised")
    where = ", all but its first token" if part == "prompt" else ", through the score at its last token" if reads == "scores" else ""
    return Learned(("N" if has_nll else " ") + mark, f"{verb} by {terms}{where}")

"""Diversity of replies, per input and across inputs: the base model, SFT, SFT then DPO, and ORPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from evidence.claims import Claim, Estimate, differences, is_above, is_below, over_seeds
from evidence.lab import Lab
from evidence.pictures import COLOURS, INK, panels
from evidence.records import Record
from evidence.replies import samples
from evidence.two_ways import BUILT_IN, dpo_run, orpo_run, sft_run, tuned
from orpo.data.world import builtin_model_path
from orpo.evaluation.diversity import EMBEDDING, diversity_of

TITLE = "Diversity of replies (section 6)"
SEEDS = (1, 2, 3, 4, 5)
NUM_PROMPTS, NUM_SAMPLES = 40, 5
MODELS = {"base": "base", "sft": "SFT, half the steps", "dpo": "SFT, then DPO", "orpo": "ORPO"}


def record(lab: Lab, *, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Both figures of each model, seed by seed."""
    chosen = tuned(lab, BUILT_IN)["chosen"]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in MODELS}
    for seed in seeds:
        sft = sft_run(lab, BUILT_IN, seed, chosen["sft"])
        folders = {
            "base": builtin_model_path(),
            "sft": sft.model_dir,
            "dpo": dpo_run(lab, BUILT_IN, seed, chosen["dpo"], sft=sft).model_dir,
            "orpo": orpo_run(lab, BUILT_IN, seed, chosen["orpo"]).model_dir,
        }
        for name, folder in folders.items():
            found[name].append(_diversity(lab, folder, seed))
    return {"seeds": list(seeds), "num_prompts": NUM_PROMPTS, "num_samples": NUM_SAMPLES, "embedding": EMBEDDING, "models": found}


def _diversity(lab: Lab, folder: Path, seed: int) -> dict[str, Any]:
    model = "built-in" if folder == builtin_model_path() else lab.name_of(folder)
    asked = {"model": model, "seed": seed, "prompts": NUM_PROMPTS, "samples": NUM_SAMPLES}
    result, _ = lab.once("samples", asked, lambda _: asdict(diversity_of(samples(folder, seed, num_prompts=NUM_PROMPTS, num=NUM_SAMPLES))))
    return {name: result[name] for name in ("per_input", "across_inputs")}


def values(content: Record, model: str, figure: str) -> list[float]:
    """A figure of a model, seed by seed."""
    return [one[figure] for one in content["models"][model]]


def claims(content: Record) -> tuple[Claim, ...]:
    """What the paper finds of ORPO against DPO."""
    per, across = (
        differences(values(content, "orpo", figure), values(content, "dpo", figure)) for figure in ("per_input", "across_inputs")
    )
    return (
        Claim(
            "Samples for one prompt are more alike with ORPO than with SFT then DPO",
            "sec. 6",
            "the cosine per input is higher with ORPO (paired by seed)",
            is_above(per),
            f"cosine per input {per}",
        ),
        Claim(
            "Replies to different prompts are less alike with ORPO than with SFT then DPO",
            "sec. 6",
            "the cosine across inputs is lower with ORPO (paired by seed)",
            is_below(across),
            f"cosine across inputs {across}",
        ),
    )


def _plain(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def lines(content: Record) -> list[str]:
    """Both figures of each model."""
    rows = [
        f"| {title} | {' | '.join(_plain(over_seeds(values(content, name, figure))) for figure in ('per_input', 'across_inputs'))} |"
        for name, title in MODELS.items()
    ]
    return [
        "| mean cosine, lower is more diverse | per input | across inputs |",
        "|---|---|---|",
        *rows,
        "",
        f"{content['num_samples']} samples at temperature 1 of each of {content['num_prompts']} held-out prompts. The paper embeds replies "
        f"with a sentence encoder; here: {content['embedding']}.",
    ]


def picture(content: Record) -> Figure:
    """Each model as a point, each seed a faint one."""
    figure, (axis,) = panels(1, height=2.8)
    # The first name stands left of its point and above it, the others right and in turn below and above: neighbours do not share a line.
    order = sorted(MODELS, key=lambda name: over_seeds(values(content, name, "across_inputs")).mean)
    for name, title in MODELS.items():
        across, per = values(content, name, "across_inputs"), values(content, name, "per_input")
        axis.scatter(across, per, s=12, color=COLOURS[name], alpha=0.35, linewidth=0)
        middle = (over_seeds(across).mean, over_seeds(per).mean)
        axis.scatter(*middle, s=46, color=COLOURS[name])
        place = order.index(name)
        shift, side = (6 if place else -4, -11 if place % 2 else 11), "left" if place else "right"
        axis.annotate(title, middle, xytext=shift, textcoords="offset points", va="center", ha=side, color=INK, fontsize=9)
    axis.set(xlabel="across inputs", ylabel="per input", title="mean cosine of replies: left and down is more diverse")
    axis.margins(x=0.2, y=0.15)
    return figure


ALT = "Mean cosine of replies per input over that across inputs for the base model, SFT, SFT then DPO, and ORPO"

"""Cost to equal quality: ORPO against SFT then DPO, each stage counted, up to the oracle score that all of them reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.figure import Figure

from evidence.claims import Claim, Estimate, all_of, is_below, over_seeds
from evidence.lab import Lab, WorldRun
from evidence.pictures import COLOURS, courses, label_end, panels
from evidence.records import Record
from evidence.two_ways import BUILT_IN, dpo_run, orpo_run, score_at, sft_run, tuned
from orpo.runs import names
from orpo.runs.metrics import read_metrics

TITLE = "Cost to equal quality (section 7)"
SEEDS = (1, 2, 3, 4, 5)
WAYS = {"orpo": "ORPO", "live": "SFT, then DPO, live reference", "precomputed": "SFT, then DPO, precomputed reference"}
COUNTED = ("steps", "forwards", "reference_forwards", "tokens", "reference_tokens", "seconds")
BACKWARD = 2
"""A backward pass is two forward passes of work: gradients of inputs and of weights."""


def record(lab: Lab, *, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Score and cost at the checkpoints of each way, seed by seed."""
    tuning = tuned(lab, BUILT_IN)
    chosen = tuning["chosen"]
    curves: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    peaks: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in seeds:
        sft = sft_run(lab, BUILT_IN, seed, chosen["sft"])
        stages = {"orpo": [orpo_run(lab, BUILT_IN, seed, chosen["orpo"])]}
        for reference, way in (("copy", "live"), ("precomputed", "precomputed")):
            stages[way] = [sft, dpo_run(lab, BUILT_IN, seed, chosen["dpo"], sft=sft, reference=reference)]
        for way, runs in stages.items():
            curves[way].append(_curve(lab, runs, seed))
            peaks[way].append(max(run.figures["cost"]["peak_memory_gib"] for run in runs))
    models = {"orpo": 1, "live": 2, "precomputed": 1}
    return {"seeds": list(seeds), "tuning": tuning, "curves": curves, "peak_memory_gib": peaks, "models_in_memory": models}


def _curve(lab: Lab, stages: Sequence[WorldRun], seed: int) -> dict[str, list[float]]:
    """COUNTED and the score at each checkpoint; a stage begins with what those before it have cost."""
    before = dict.fromkeys(COUNTED, 0.0)
    curve: dict[str, list[float]] = {name: [0.0] for name in COUNTED} | {"score": [score_at(lab, stages[0], seed, 0)]}
    for run in stages:
        points = _stage_points(run)
        for point in points:
            for name in COUNTED:
                curve[name].append(before[name] + point[name])
            curve["score"].append(score_at(lab, run, seed, int(point["steps"])))
        before = {name: before[name] + points[-1][name] for name in COUNTED}
    return curve


def _stage_points(run: WorldRun) -> list[dict[str, float]]:
    """COUNTED at each checkpoint of one stage, from its own log. What made the reference ready is paid before the first step."""
    cost, settings = run.figures["cost"], run.figures["settings"]
    way = settings.get("reference") if run.figures["objective"] == "dpo" else None
    rows = [row for row in read_metrics(run.run_dir / names.METRICS) if row["split"] == "train"]
    points = []
    for row in rows:
        if row["step"] % settings["save_steps"]:
            continue
        live = way == "copy"
        points.append(
            {
                "steps": row["step"],
                "forwards": row["step"],
                "reference_forwards": row["step"] if live else cost["reference_forwards"] if way else 0,
                "tokens": row["num_tokens"],
                "reference_tokens": row["num_tokens"] if live else cost["reference_tokens"] if way else 0,
                "seconds": run.figures["core_share"] * (row["seconds"] - row["evaluation_seconds"] + cost["reference_seconds"]),
            }
        )
    return points


def work(curve: Mapping[str, Sequence[float]]) -> list[float]:
    """Millions of token forward passes: of the policy with its backward, and of the reference."""
    pairs = zip(curve["tokens"], curve["reference_tokens"], strict=True)
    return [((1 + BACKWARD) * tokens + reference) / 1e6 for tokens, reference in pairs]


def level(curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> float:
    """The highest score, in hundredths, that every run of every way reaches."""
    return math.floor(100 * min(max(curve["score"]) for runs in curves.values() for curve in runs) + 1e-9) / 100


def reached(curve: Mapping[str, Sequence[float]], score: float) -> int:
    """Which point of the curve is the first with at least `score`. One that is reached by luck counts: the same for all ways."""
    best = list(accumulate(curve["score"], max))
    return next(place for place, value in enumerate(best) if value >= score)


def spent(content: Record, way: str, key: str) -> list[float]:
    """What each seed of a way has spent of `key` when it reaches the level of all."""
    found = []
    for curve in content["curves"][way]:
        values = work(curve) if key == "work" else curve[key]
        found.append(values[reached(curve, level(content["curves"]))])
    return found


def share(content: Record, way: str, key: str = "work") -> Estimate:
    """What ORPO spends over what `way` spends, paired by seed."""
    return over_seeds([one / other for one, other in zip(spent(content, "orpo", key), spent(content, way, key), strict=True)])


def per_step(content: Record, way: str) -> float:
    """Forward passes of policy and reference per step of the last stage of a way."""
    curve = content["curves"][way][0]
    first = next(place for place, number in enumerate(curve["reference_forwards"]) if number or way == "orpo")
    steps = curve["steps"][-1] - curve["steps"][first]
    return float(sum(curve[name][-1] - curve[name][first] for name in ("forwards", "reference_forwards")) / steps)


def claims(content: Record) -> tuple[Claim, ...]:
    """Passes of a step, and cost to equal score."""
    passes = {way: per_step(content, way) for way in WAYS}
    live, precomputed = share(content, "live"), share(content, "precomputed")
    return (
        Claim(
            "A step of ORPO takes half the forward passes of a step of DPO",
            "sec. 7",
            "passes of policy and live reference, counted, are in the ratio of 1 to 2",
            "shown" if passes["orpo"] / passes["live"] <= 0.5 else "not shown",
            f"{passes['orpo']:g} against {passes['live']:g} (reference precomputed: {passes['precomputed']:g}); "
            f"with backward {(1 + BACKWARD) / (passes['live'] + BACKWARD):.2f} of the work",
        ),
        Claim(
            "ORPO reaches equal quality for less work than SFT and DPO together",
            "sec. 1, 7",
            "its work up to the common score is below that of both kinds of reference (ratio paired by seed below 1)",
            all_of(is_below(live, 1.0), is_below(precomputed, 1.0)),
            f"{live.mean:.2f} ({live.low:.2f} to {live.high:.2f}) of live, {precomputed.mean:.2f} ({precomputed.low:.2f} to "
            f"{precomputed.high:.2f}) of precomputed, up to score {level(content['curves']):.2f}",
        ),
    )


def lines(content: Record) -> list[str]:
    """What each way spends up to the common level, and in all."""
    rows = []
    for way, title in WAYS.items():
        mean = {key: _mean(spent(content, way, key)) for key in (*COUNTED, "work")}
        best = _mean([max(curve["score"]) for curve in content["curves"][way]])
        last = _mean([curve["score"][-1] for curve in content["curves"][way]])
        rows.append(
            f"| {title} | {mean['steps']:.0f} | {mean['forwards']:.0f} + {mean['reference_forwards']:.0f} | {mean['tokens'] / 1e3:.1f} + "
            f"{mean['reference_tokens'] / 1e3:.1f} | {mean['work']:.3f} | {mean['seconds']:.1f} | {content['models_in_memory'][way]} "
            f"| {1024 * _mean(content['peak_memory_gib'][way]):.0f} | {last:.3f} ({best:.3f}) |"
        )
    settings = "; ".join(f"{name} {_spelled(chosen)}" for name, chosen in content["tuning"]["chosen"].items())
    return [
        f"| up to oracle score {level(content['curves']):.2f} | steps | forwards, policy + reference | thousand tokens | work "
        "| seconds of one core | models | peak MiB | score at the end (best) |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "| SFT, reward model, then PPO | | | | | | | | not measured: PPO is not here yet |",
        "",
        "Work: million tokens forward, a backward pass counted as two. SFT is not charged for rejected answers. "
        "Seconds of one core: wall time times the share of a core that the run got. Peak: of the whole process; the libraries are nearly "
        "all of it, for a copy of this model has 6 MiB. "
        f"Four trials a stage on a seed of their own gave: {settings}.",
    ]


def _spelled(settings: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('learning_rate', 'rate')} {value:g}" for name, value in settings.items())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def picture(content: Record) -> Figure:
    """Score over work, and over seconds."""
    figure, axes = panels(2, share_y=True)
    colours = {"orpo": COLOURS["orpo"], "live": COLOURS["dpo"], "precomputed": COLOURS["sft"]}
    for axis, key, text in zip(axes, ("work", "seconds"), ("million tokens forward (work)", "seconds of one core"), strict=True):
        for way, curves in content["curves"].items():
            points = [{**curve, "work": work(curve)} for curve in curves]
            end = courses(axis, points, "score", colour=colours[way], against=key)
            short = {"orpo": "ORPO", "live": "live", "precomputed": "precomp."}[way]
            label_end(axis, short, end, colour=colours[way], shift={"live": -9, "precomputed": 5, "orpo": 4}[way])
        axis.axhline(level(content["curves"]), color=COLOURS["base"], linewidth=0.8, linestyle=(0, (4, 3)))
        axis.set_xlabel(text)
    axes[0].set_ylabel("oracle score, held-out prompts")
    return figure


ALT = "Oracle score over work and over seconds for ORPO and for SFT then DPO with a live and a precomputed reference"

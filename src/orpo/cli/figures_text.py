"""Evaluations as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orpo.runs.evaluations import Evaluation

Figures = Mapping[str, Any]


def evaluation_text(evaluation: Evaluation) -> str:
    """The figures of one evaluation, each with its interval, and what they are figures of."""
    figures, settings = evaluation.figures, evaluation.settings
    if evaluation.kind == "pairs":
        return "\n".join(_pairs(figures, settings))
    if evaluation.kind == "win_rate":
        return "\n".join(_win_rate(figures, settings))
    if evaluation.kind == "diversity":
        return "\n".join(_diversity(figures))
    return "\n".join(_benchmark(figures, settings))


def _pairs(figures: Figures, settings: Figures) -> list[str]:
    lines = [
        f"model        {settings['model']}",
        f"pairs        {figures['num_pairs']:,} of {', '.join(str(Path(path)) for path in settings['data'])}",
        f"accuracy     {_percent(figures, 'accuracy')}, 95 % Wilson interval)",
    ]
    margin = f"margin       {figures['margin']:.4f} ({figures['margin_low']:.4f} to {figures['margin_high']:.4f}, 95 % interval)"
    if "rewards/chosen" in figures:
        return [*lines, f"rewards      chosen {figures['rewards/chosen']:.4f}, rejected {figures['rewards/rejected']:.4f} (mean)", margin]
    return [
        *lines,
        f"NLL          {figures['nll_loss']:.4f} nats per chosen token",
        f"log p        chosen {figures['logps/chosen']:.4f}, rejected {figures['logps/rejected']:.4f} (mean per token)",
        margin,
    ]


def _win_rate(figures: Figures, settings: Figures) -> list[str]:
    within = settings["tie_within"]
    tied = f"scores at most {within:g} apart" if within else "equal scores"
    lines = [
        f"win rate     {_percent(figures, 'win_rate')}, 95 % Wilson interval; bootstrap {_interval(figures, 'win_rate_bootstrap')})",
        f"  against    {settings['vs']}, judged by {settings['judge']}",
        f"  prompts    {figures['num_prompts']:,}: {figures['wins']:,} won, {figures['ties']:,} ties, {figures['losses']:,} lost; "
        f"a tie is half a win, and {tied} are one",
    ]
    if figures["length_matched/win_rate"] is None:
        lines.append("  matched    no two replies have lengths within 10 % of each other")
    else:
        rate = _percent(figures, "length_matched/win_rate")
        lines.append(f"  matched    {rate}) of the {figures['length_matched/num_prompts']:,} whose lengths differ by at most 10 %")
    lines.append(f"  length     {figures['mean_characters']:.0f} characters, of the other {figures['mean_characters_other']:.0f} (mean)")
    if settings["num_cut"] or settings["num_cut_other"]:
        told = f"{settings['num_cut']:,} replies, of the other {settings['num_cut_other']:,}"
        lines.append(f"  cut        {told}, did not end within {settings['max_new_tokens']:,} tokens")
    if figures["num_flips"] is not None:
        lines.append(f"  flips      {figures['num_flips']:,}: the judge said another thing in the other order, which counts as a tie")
    return lines


def _diversity(figures: Figures) -> list[str]:
    num, samples = figures["diversity/num_prompts"], figures["diversity/num_samples"]
    return [
        f"diversity    cosine similarity of replies, lower is more diverse; {num:,} prompts, {samples} samples of each",
        f"  per input  {figures['diversity/per_input']:.4f}",
        f"  across     {figures['diversity/across_inputs']:.4f}",
    ]


def _benchmark(figures: Figures, settings: Figures) -> list[str]:
    task, prefix = settings["task"], f"{settings['task']}/"
    num = figures.get(f"{prefix}num_documents")
    lines = [f"{task:<12} {settings['library']}" + (f", {num:,.0f} documents" if num is not None else "")]
    for name, value in figures.items():
        if name.startswith(prefix) and "_stderr" not in name and name != f"{prefix}num_documents" and value is not None:
            metric, _, kept = name.removeprefix(prefix).partition(",")
            error = figures.get(f"{prefix}{metric}_stderr" + (f",{kept}" if kept else ""))
            lines.append(f"  {name.removeprefix(prefix):<24} {value:.4f}" + (f" (standard error {error:.4f})" if error is not None else ""))
    return lines


def _percent(figures: Figures, name: str) -> str:
    """'62.5 % (50.0-73.5' : the caller says what the interval is and closes it."""
    return f"{100 * figures[name]:.1f} % ({_interval(figures, name)}"


def _interval(figures: Figures, name: str) -> str:
    return f"{100 * figures[f'{name}_low']:.1f}-{100 * figures[f'{name}_high']:.1f}"

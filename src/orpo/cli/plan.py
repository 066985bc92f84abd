"""`orpo plan`: what `orpo train` would do with the same arguments, and whether it fits into memory."""

from __future__ import annotations

import inspect
import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orpo.cli.options import config_parameter, flag_parameter
from orpo.training.config_flags import flag_table

if TYPE_CHECKING:
    from orpo.pipeline.plan import RunPlan

BAR = 30
WIDE = 17
LABELS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "head": "head",
    "allocator": "allocator slack",
    "process": "this process",
    "data": "data",
}


REFERENCES = {
    "precomputed": "scores {reference_tokens:,} tokens in all, before the first step and once; no copy of the model in memory",
    "copy": "a frozen copy of the model in memory scores each step too: {reference_tokens:,} tokens in all",
    "adapter": "the model with its adapters off scores each step too: {reference_tokens:,} tokens in all",
}

SUMMARY = """Say what `orpo train` with the same arguments would do, and whether it fits into memory. Trains nothing, writes nothing."""


def add_plan_command(app: typer.Typer) -> None:
    """Nothing; `app` has the command `plan`, with the flags of `train` and `--json`."""

    def plan(config: Any = None, json: bool = False, **flags: Any) -> None:
        given = {name: value for name, value in flags.items() if value is not None and value != []}
        run_plan_command(config, given, as_json=json)

    as_json = inspect.Parameter(
        "json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")],
    )
    parameters = [config_parameter(), *(flag_parameter(flag) for flag in flag_table()), as_json]
    plan.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    plan.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command("plan", help=SUMMARY)(plan)


def run_plan_command(config: str | None, flags: dict[str, Any], *, as_json: bool) -> None:
    """Prints the plan; exit 7 when it does not fit. Loads no weights, writes nothing."""
    from orpo.training.config import resolve_config

    resolved = resolve_config(file=Path(config) if config else None, flags=flags)
    from orpo.pipeline.plan import run_plan
    from orpo.pipeline.run import quiet_libraries

    quiet_libraries()
    found = run_plan(resolved)
    if as_json:
        typer.echo(json_text.dumps(found.as_dict()))
    else:
        for note in resolved.notes:
            _say("note", note)
        show_plan(found)
    if not found.fits:
        from orpo.errors import OutOfMemoryError

        raise typer.Exit(OutOfMemoryError.exit_code)


def show_plan(found: RunPlan) -> None:
    """Prints what the run does, then its memory by part, then whether it fits."""
    from orpo.pipeline.fitting import KEPT_BACK, fitting_text, shown

    work = found.work
    trained = f"{found.num_parameters / 1e6:,.2f} M parameters, {found.num_trained / 1e6:,.2f} M trained"
    at_once = f"at most {found.tokens_per_micro_batch:,} tokens at once (largest {work.largest_micro_batch:,})"
    _say("machine", found.machine)
    _say("model", f"{found.model}: {trained}")
    if not found.has_weights:
        _say("note", "no weights in this folder yet")
    for line in found.data_lines:
        typer.echo(line)
    _say("dtype", f"{found.dtype} ({found.dtype_reason})")
    _say("longest", f"{work.longest_pair:,} tokens in a pair, {work.longest_row:,} in a row (a prompt with one answer)")
    _say(
        "steps", f"{work.max_steps:,} of {work.pairs_per_step:,} pairs, {work.tokens_per_step:,.0f} tokens each, {work.num_tokens:,} in all"
    )
    if found.reference:
        _say("reference", REFERENCES[found.reference].format(**found.passes))
    _say("at once", f"{at_once}, {work.micro_batches_per_step:.1f} micro-batches a step")
    _say(
        "padded rows",
        f"not used here; a padded trainer: {work.padding_share:.0%} of its tokens are padding, "
        f"{work.shared_share * (1 - work.padding_share):.0%} a second copy of prompts",
    )
    _say("recompute", "on (gradient checkpointing)" if found.checkpointing else "off")
    _say("memory", f"peak in the {found.need.moment}" + (f"; roughly estimated: {found.estimated}" if found.estimated else ""))
    for name, num in found.need.parts.items():
        typer.echo(_part_line(LABELS[name], num, found.need.peak_bytes))
    available = f"{_gib(found.available_bytes).strip()} available ({KEPT_BACK:.0%} of what is free is kept back)"
    typer.echo(f"  {'total':<{WIDE}}{_gib(found.need.peak_bytes)} of {available}")
    if found.fits:
        _say("fits", f"yes, {_gib(found.available_bytes - found.need.peak_bytes).strip()} to spare")
        return
    _say("fits", f"no, {_gib(found.need.peak_bytes - found.available_bytes).strip()} too much")
    for remedy in found.remedies:
        settings = " ".join(
            f"--{key.replace('_', '-')}{'' if value is True else f' {shown(value)}'}" for key, value in remedy.settings.items()
        )
        _say("would fit", f"{settings}   ({_gib(remedy.peak_bytes).strip()}; {remedy.note})")
    if not found.remedies:
        _say("", fitting_text(()))


def _say(label: str, text: str) -> None:
    typer.echo(f"{label:<13}{text}")


def _part_line(label: str, num: int, peak: int) -> str:
    # The peak holds the weights, so it is not 0.
    return f"  {label:<{WIDE}}{_gib(num)}  {'█' * round(BAR * num / peak)}".rstrip()


def _gib(num: int) -> str:
    return f"{num / 2**30:7.2f} GiB" if num >= 2**30 / 10 else f"{num / 2**20:7.1f} MiB"

"""One run from its settings to its report, in order. Whatever stops it, summary.json says how it ended."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orpo.engine.scores import choose_score_path
from orpo.engine.sharded import is_sharded
from orpo.engine.startup_check import choose_path
from orpo.pipeline.cost import cost_section
from orpo.pipeline.given import NOTHING, Given
from orpo.pipeline.loop import reference_seconds, train_from
from orpo.pipeline.outcome import last_row, now, outcome_recorded
from orpo.pipeline.prepare import Prepared, load_body, num_parameters, prepare
from orpo.pipeline.results import Judge, evaluation_section, finish_samples, start_samples, write_pages
from orpo.pipeline.run_data import is_scored
from orpo.runs import names
from orpo.runs.atomic import write_json_atomic, write_text_atomic
from orpo.runs.summary import RunSummary, read_summary, write_summary
from orpo.training.config import ResolvedConfig, to_yaml
from orpo.training.environment import environment
from orpo.training.export import export_model
from orpo.training.guards import stops_are_errors
from orpo.training.place import Place, check_same_run, run_place, settings_hash
from orpo.training.ranks import from_first, held_by_first, is_first, start_ranks
from orpo.training.sharded_state import whole_weights

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its directory, the folder of the model (or adapter), and what summary.json says."""

    run_dir: Path
    model_dir: Path
    summary: RunSummary


def run_training(
    resolved: ResolvedConfig,
    *,
    console: Console | None = None,
    parent: Path = Path("runs"),
    prefix: str = "",
    judge: Judge | None = None,
    with_pages: bool = True,
    given: Given = NOTHING,
) -> Run:
    """The finished run of `resolved`. `judge` scores replies to held-out prompts before and after (the built-in world has one).

    Without pages there is no report and no card: for many runs that are shown on one page together. `given` is what the caller holds in
    memory in place of what the settings name.

    Raises the errors of `orpo.errors`; InterruptedRun after a signal, with a valid checkpoint saved.
    """
    console = console or people_console(quiet=not is_first())
    with stops_are_errors():
        return _run(resolved, console=console, parent=parent, prefix=prefix, judge=judge, with_pages=with_pages, given=given)


def _run(
    resolved: ResolvedConfig, *, console: Console, parent: Path, prefix: str, judge: Judge | None, with_pages: bool, given: Given
) -> Run:
    """Everything from the settings on: prepare, find the place, check what is resumed, train."""
    say = Say(console)
    quiet_libraries()
    start_ranks()
    started = time.monotonic()
    prepared = prepare(resolved, say, given=given)
    config = resolved.config
    asked = settings_hash(asdict(prepared.identity) | {"free": None})
    prefix = prefix or f"{config.objective}-{Path(str(config.model)).name}"
    place_context = run_place(
        config.output_dir, parent=parent, prefix=prefix, asked=asked, fresh=config.fresh, resume_anyway=config.resume_anyway, say=say
    )
    with held_by_first(place_context) as place:
        if place.resume:
            facts = prepared.identity.facts(epoch=0.0, samples_seen=0, world_size=prepared.world_size)
            from_first(lambda: check_same_run(place.resume, facts, resume_anyway=config.resume_anyway, say=say))  # type: ignore[arg-type]
            prepared = prepared.cut_as(from_first(lambda: read_summary(place.run_dir).sections.get("model", {})))
        summary = from_first(lambda: _begin(place, resolved, prepared, asked))
        with outcome_recorded(place.run_dir, summary, started, advice=prepared.memory_advice):
            return _train(place, prepared, console=console, say=say, judge=judge, started=started, with_pages=with_pages)


def people_console(*, quiet: bool = False) -> Console:
    """A console that wraps at words on a terminal, and leaves lines whole in a file or pipe."""
    return Console(quiet=quiet, soft_wrap=not sys.stdout.isatty())


class Say:
    """Prints a line for people, on the first rank only; text is shown as it is, never read as markup."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


def quiet_libraries() -> None:
    """Nothing; progress bars and advice of the libraries below do not mix with the live table."""
    import os
    import warnings

    import datasets
    import transformers

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    # peft 0.21 reads an attribute that transformers 5.23 renamed; nothing a user can act on.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    # accelerate 1.15 hands on a name of DDP that torch 2.13 replaces by one that does something else.
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    # bitsandbytes 0.50 says it once for each weight; the run says it once.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU", category=UserWarning)


def _begin(place: Place, resolved: ResolvedConfig, prepared: Prepared, asked: str) -> RunSummary:
    """The summary of a run that starts or goes on; settings, data report and environment are written."""
    summary = RunSummary(status="running", command=tuple(environment()["command"]), started=now())
    if (place.run_dir / names.SUMMARY).exists():
        earlier = read_summary(place.run_dir)
        if place.resume:
            summary = replace(earlier, status="running", finished=None, exit_code=None, error=None)
    summary = summary.with_section("asked", asked).with_section("model", {**summary.sections.get("model", {}), **prepared.model_section()})
    write_summary(place.run_dir, summary)
    write_text_atomic(place.run_dir / names.CONFIG, to_yaml(resolved))
    write_json_atomic(place.run_dir / names.DATA_REPORT, prepared.data_report)
    write_json_atomic(place.run_dir / names.ENVIRONMENT, environment())
    return summary


def _train(place: Place, prepared: Prepared, *, console: Console, say: Say, judge: Judge | None, started: float, with_pages: bool) -> Run:
    """The run itself: load, sample, train, sample, export, report."""
    run_dir, config = place.run_dir, prepared.config
    body = load_body(prepared, place.resume.path if place.resume else None, say)
    step = place.resume.manifest.step if place.resume else 0
    earlier = from_first(lambda: read_summary(run_dir).sections.get("model", {}))
    choose = choose_score_path if is_scored(config.objective) else choose_path
    choice = from_first(lambda: choose(body, longest=prepared.longest_row(), dtype=prepared.precision.dtype))
    say(f"engine       {choice}")
    if place.resume and earlier.get("engine", choice.path) != choice.path:
        say(f"note         the run began on the path {earlier['engine']}; from here on numbers agree up to rounding")

    def start() -> None:
        summary = read_summary(run_dir)
        facts = {**num_parameters(body), "engine": choice.path, "engine_refused": {str(path): why for path, why in choice.refused}}
        write_summary(run_dir, summary.with_section("model", {**summary.sections["model"], **facts}))
        if not place.resume:
            start_samples(run_dir, prepared, body, judge=judge)

    def finish() -> RunSummary:
        folder = export_model(run_dir, body, prepared.tokenizer, weights=weights)
        # A divided body cannot answer on one process alone: what was written can.
        is_asked = is_sharded(body) and (run_dir / names.SAMPLES).exists()
        whole = load_body(prepared, folder, lambda _: None) if is_asked else body
        sections = finish_samples(run_dir, prepared, whole, judge=judge)
        write_summary(run_dir, _finished(run_dir, prepared, sections, started))
        if with_pages:
            write_pages(run_dir, say)
        return read_summary(run_dir)

    say(f"writes       {run_dir}/")
    from_first(start)
    if step < prepared.plan.max_steps:
        train_from(place, prepared, body, choice.path, console=console, say=say, step=step)
    weights = whole_weights(body)
    model_dir = run_dir / (names.ADAPTER if config.use_peft else names.MODEL)
    return Run(run_dir, model_dir, from_first(finish))


def _finished(run_dir: Path, prepared: Prepared, sections: dict[str, Any], started: float) -> RunSummary:
    """The summary of a run that is done."""
    summary = read_summary(run_dir)
    cost = cost_section(run_dir, prepared, reference_seconds=reference_seconds(summary))
    seconds = summary.seconds + time.monotonic() - started
    steps = int(last_row(run_dir).get("step", 0))
    summary = replace(summary, status="done", finished=now(), seconds=seconds, steps=steps, exit_code=0)
    for name, content in {**evaluation_section(run_dir), **sections, "cost": cost}.items():
        summary = summary.with_section(name, content)
    return summary

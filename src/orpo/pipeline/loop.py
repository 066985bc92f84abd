"""The training of a run: a model that is loaded and a place to write enter; the same model, trained, stays. Stops, logs, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from orpo.engine.paths import Path as EnginePath
from orpo.engine.sharded import require_packs, shard
from orpo.errors import InterruptedRun
from orpo.pipeline.outcome import last_row
from orpo.pipeline.prepare import Prepared
from orpo.pipeline.references import beside_of
from orpo.pipeline.run_data import Say
from orpo.runs import names
from orpo.runs.metrics import MetricsLog
from orpo.runs.summary import RunSummary, read_summary, write_summary
from orpo.training.assemble import build_trainer, training_arguments
from orpo.training.beside import Beside
from orpo.training.checkpointing import checkpoint_saver
from orpo.training.console import TrainingView
from orpo.training.guards import FiniteGuard, SignalCallback, StopSignals, batch_saver
from orpo.training.held_out import HeldOutCallback
from orpo.training.place import Place
from orpo.training.ranks import from_first, is_first
from orpo.training.recording import RecordingCallback
from orpo.training.trainer import PreferenceTrainer


def train_from(place: Place, prepared: Prepared, body: Any, path: EnginePath, *, console: Console, say: Say, step: int) -> None:
    """Nothing; `body` is trained from `step` to the last one. Raises InterruptedRun after a signal, once its checkpoint is published."""
    config, run_dir = prepared.config, place.run_dir
    beside = _beside(prepared, body, path, run_dir=run_dir, is_resumed=place.resume is not None, say=say)
    if config.sharding == "fsdp":
        require_packs(path)
        shard(body, dtype=prepared.precision.dtype)
    log = MetricsLog(run_dir / names.METRICS) if is_first() else None
    if log:
        log.truncate_after(step if place.resume else -1)
    view = TrainingView(console, prepared.plan.max_steps, first_step=step, beta=prepared.beta)
    signals = StopSignals(view.say)
    signal_callback = SignalCallback(signals)
    trainer = _trainer(place, prepared, body, path, beside=beside, log=log, view=view, signals=signal_callback)
    if prepared.given.began:
        prepared.given.began(trainer)
    if place.resume:
        last, num_pairs = last_row(run_dir), place.resume.manifest.facts.samples_seen
        evaluating = float(last.get("evaluation_seconds") or 0.0)
        trainer.restore_progress(step, float(last.get("seconds") or 0.0), num_pairs, evaluation_seconds=evaluating)
    try:
        with signals, view:
            trainer.train(resume_from_checkpoint=str(place.resume.path) if place.resume else None)
    finally:
        trainer.model.release()
        if log:
            log.sync()
            log.close()
    if trainer.guard.num_skipped:
        say(f"{trainer.guard.num_skipped} steps were not finite and changed nothing; their batches are saved beside the metrics")
    _stop_if_asked(trainer, signal_callback, run_dir)


def _trainer(
    place: Place,
    prepared: Prepared,
    body: Any,
    path: EnginePath,
    *,
    beside: Beside,
    log: MetricsLog | None,
    view: TrainingView,
    signals: SignalCallback,
) -> PreferenceTrainer:
    """The trainer of the run, which writes into its folder and shows what it does in `view`. `log` is there on the first rank alone."""
    config, run_dir = prepared.config, place.run_dir
    arguments = training_arguments(
        config,
        prepared.plan,
        run_dir=run_dir,
        precision=prepared.precision,
        has_held_out=prepared.held_out is not None,
        is_resumed=place.resume is not None,
    )
    save = checkpoint_saver(
        run_dir,
        prepared.identity,
        tokenizer=prepared.tokenizer,
        keep=config.save_total_limit,
        say=view.say,
        before=log.sync if log else lambda: None,
    )
    recording = RecordingCallback(*([log.append, view.show] if log else []))
    return build_trainer(
        body,
        arguments,
        path=path,
        objective=prepared.objective,
        run_plan=prepared.plan,
        seed=config.seed,
        store=prepared.store,
        lengths=prepared.lengths,
        costs=prepared.costs(path),
        held_out=prepared.held_out,
        beside=beside,
        guard=FiniteGuard(batch_saver(run_dir)),
        save=save,
        callbacks=[signals, recording, HeldOutCallback(run_dir), *prepared.given.callbacks],
    )


def _beside(prepared: Prepared, body: Any, path: EnginePath, *, run_dir: Path, is_resumed: bool, say: Say) -> Beside:
    """What the objective reads beside the policy; how long that took to make is added to the summary: it is part of the cost."""

    def add(seconds: float) -> None:
        summary = read_summary(run_dir)
        write_summary(run_dir, summary.with_section("cost", {"reference_seconds": reference_seconds(summary) + seconds}))

    def spent(seconds: float) -> None:
        from_first(lambda: add(seconds))

    return beside_of(prepared, body, path, run_dir=run_dir, is_resumed=is_resumed, say=say, spent=spent)


def reference_seconds(summary: RunSummary) -> float:
    """Seconds that it has taken so far to make the reference ready, 0 where nothing was noted."""
    return float(summary.sections.get("cost", {}).get("reference_seconds", 0.0))


def _stop_if_asked(trainer: PreferenceTrainer, signals: SignalCallback, run_dir: Path) -> None:
    if signals.agreed_stop and trainer.state.global_step < trainer.state.max_steps:
        raise InterruptedRun(
            f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; a checkpoint is saved in {run_dir}",
            signal_number=signals.agreed_stop,
            fix="the same command again goes on from here",
        )

"""What one process of a comparison does: train one stage, measure it, and leave a result or a failure in the stage's folder."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console

from orpo.comparison.measure import measured, readable_prompts
from orpo.comparison.settings import followed_from
from orpo.errors import InterruptedRun, OrpoError
from orpo.pipeline.evaluate import load_trained, trained_template
from orpo.pipeline.prepare import load_body, max_length_of, num_parameters, prepare
from orpo.pipeline.run import quiet_libraries, run_training
from orpo.pipeline.run_data import checked_data
from orpo.runs import names
from orpo.runs.atomic import write_json_atomic
from orpo.runs.metrics import read_metrics
from orpo.training import models
from orpo.training.config import ResolvedConfig

RESULT, FAILURE, LOG, RUN = "result.json", "failure.json", "log.txt", "run"
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Work:
    """One stage to be done in `folder`: train as `resolved` says (not at all where `is_base`), measure on the pairs of `data`.

    `only` names the one figure that is needed, '' for all; without `data` nothing is measured. `world` says that the oracle judges.
    """

    name: str
    fingerprint: str
    folder: str
    resolved: ResolvedConfig
    data: tuple[str, ...]
    world: bool
    only: str = ""
    is_base: bool = False
    threads: int = 1
    needs_model: bool = False


def process(work: Work) -> NoReturn:
    """The process of one stage. Exits with 0 and a result, with 1 and a failure, or with 143 after a signal, a checkpoint saved."""
    gc.freeze()  # what the libraries made when they were loaded lives as long as this process: no collection looks through it
    os.setpgid(0, 0)  # Ctrl-C in the terminal reaches the parent alone, which asks every process to save
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder = Path(work.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a", encoding="utf-8", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        torch.set_num_threads(work.threads)
        sys.exit(_code_of(work, folder, Console(file=log, width=160)))


def _code_of(work: Work, folder: Path, console: Console) -> int:
    started = time.monotonic()
    try:
        result = base_result(work) if work.is_base else stage_result(work, folder, console)
    except InterruptedRun as stop:
        return stop.exit_code
    except Exception as error:
        is_known = isinstance(error, OrpoError)
        console.print(str(error) if is_known else traceback.format_exc(), markup=False, highlight=False)
        code = error.exit_code if isinstance(error, OrpoError) else 1
        text = error.problem if isinstance(error, OrpoError) else f"{type(error).__name__}: {error}"
        write_json_atomic(folder / FAILURE, {"fingerprint": work.fingerprint, "exit_code": code, "error": text})
        return 1
    result |= {"fingerprint": work.fingerprint, "wall_seconds": time.monotonic() - started}
    write_json_atomic(folder / RESULT, result)
    tidy(folder)
    return 0


def _end_with_parent() -> None:
    """Ends this process when the comparison's own is gone: nobody would read the result, and the next one needs the folder."""
    parent = parent_process()
    assert parent is not None, "a stage is a child process"
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def stage_result(work: Work, folder: Path, console: Console) -> dict[str, Any]:
    """Trains the stage, or goes on with it, and measures its model: what it cost, its curves, its figures."""
    resolved = replace(work.resolved, config=replace(work.resolved.config, output_dir=str(folder / RUN)))
    run = run_training(resolved, console=console, with_pages=False)
    found: dict[str, Any] = {"cost": run.summary.sections["cost"], "curve": _curve(run.run_dir), "settings": dict(followed_from(resolved))}
    if work.data:
        found["measured"] = _measured(work, str(run.model_dir))
    if work.needs_model:
        _keep_model(run.model_dir, folder, resolved)
    return found


def base_result(work: Work) -> dict[str, Any]:
    """The untrained model: its figures, its prompts as a person reads them, and its size."""
    quiet_libraries()
    prepared = prepare(work.resolved, print)
    body, tokenizer = load_body(prepared, None, print), prepared.tokenizer
    data = checked_data(work.resolved.config, work.data, tokenizer, max_length=max_length_of(work.resolved, prepared.shape))
    assert data.store is not None, "checked with a tokenizer"
    world = work.data if work.world else ()
    found = measured(body, tokenizer, data.store, world=world, max_new_tokens=work.resolved.config.max_new_tokens)
    prompts = readable_prompts(tokenizer, data.store, world=world)
    return {"measured": found, "prompts": prompts, **num_parameters(body)}


def _measured(work: Work, folder: str) -> dict[str, Any]:
    """The figures of the model in `folder`, on the same pairs for every objective, whatever it read while it trained."""
    config = work.resolved.config
    tokenizer = models.load_tokenizer(folder)
    pairs = replace(config, objective="orpo", objective_options={}, template=trained_template(config))
    data = checked_data(pairs, work.data, tokenizer, max_length=max_length_of(work.resolved, models.load_shape(str(config.model))))
    assert data.store is not None, "checked with a tokenizer"
    body = load_trained(folder, config, tokenizer)
    world = work.data if work.world else ()
    return measured(body, tokenizer, data.store, world=world, max_new_tokens=config.max_new_tokens, only=work.only)


def _curve(run_dir: Path) -> list[dict[str, Any]]:
    """The held-out rows of a run."""
    rows = [row for row in read_metrics(run_dir / names.METRICS) if row["split"] == "eval"]
    return [{name: row.get(name) for name in ("step", "logps/chosen", "logps/rejected", "nll_loss", "rewards/accuracies")} for row in rows]


def _keep_model(model_dir: Path, folder: Path, resolved: ResolvedConfig) -> None:
    """Nothing; `folder` holds a model that the next stage starts from. An adapter is merged into the model that it was trained on."""
    target = folder / MODEL
    shutil.rmtree(target, ignore_errors=True)
    if not resolved.config.use_peft:
        model_dir.rename(target)  # killed before the result is there, the run exports its model once more
        return
    tokenizer = models.load_tokenizer(str(model_dir))
    body = load_trained(str(model_dir), resolved.config, tokenizer).merge_and_unload()
    body.save_pretrained(target)
    tokenizer.save_pretrained(target)


def tidy(folder: Path) -> None:
    """Nothing; of the run in `folder` what is read is left: no checkpoints, weights or tables of log-probs."""
    run_dir = folder / RUN
    for path in run_dir.iterdir() if run_dir.is_dir() else ():
        if names.checkpoint_step(path.name) is not None or path.name in (names.MODEL, names.ADAPTER):
            shutil.rmtree(path)
        elif names.is_reference_name(path.name):
            path.unlink()


def read_result(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The result in `folder` of just this stage; None where there is none."""
    return _read(folder / RESULT, fingerprint)


def read_failure(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """How the stage in `folder` failed; None where it did not."""
    return _read(folder / FAILURE, fingerprint)


def _read(path: Path, fingerprint: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found if found.get("fingerprint") == fingerprint else None

"""The laboratory: pieces of work are asked for, done once, and kept in a folder; what they cost is counted whether kept or done now."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from orpo.pipeline.demo import run_demo
from orpo.pipeline.run import Run
from orpo.runs import names
from orpo.runs.metrics import read_metrics

FIGURES = "figures.json"
STEPS = 150
"""Steps of a run of 8 pairs where nothing else is said, over 400 training pairs: three epochs."""


@dataclass(frozen=True, slots=True)
class WorldRun:
    """A finished run on the built-in world: plain figures for a record, the folder of its model and that of the run."""

    figures: Mapping[str, Any]
    model_dir: Path
    run_dir: Path

    def changes(self) -> dict[str, float]:
        """How far the held-out log-probs of both answers and their margin came, last less first, in nats per token."""
        return changes(self.figures)


class Lab:
    """Does each piece of work once. A piece that was interrupted is done again from its start, so that its seconds are true."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.say = folder, say
        self.seconds = self.cpu_seconds = 0.0
        self.counted = set[Path]()

    def once(self, what: str, asked: Mapping[str, Any], make: Callable[[Path], Any]) -> tuple[Any, Path]:
        """(what `make` returned, plain JSON; the folder that it was given to write into). `what` and `asked` name the piece."""
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        folder = self.folder / f"{what}-{key}"
        path = folder / FIGURES
        if not path.exists():
            self.say(f"{what} {json.dumps(asked, sort_keys=True)}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            started, cpu_started = time.monotonic(), _cpu_seconds()
            result = make(folder)
            cost = {"seconds": time.monotonic() - started, "cpu_seconds": _cpu_seconds() - cpu_started}
            path.write_text(json.dumps({"asked": asked, **cost, "result": result}), encoding="utf-8")
        kept = json.loads(path.read_text(encoding="utf-8"))
        if folder not in self.counted:
            self.counted.add(folder)
            self.seconds += kept["seconds"]
            self.cpu_seconds += kept["cpu_seconds"]
        return kept["result"], folder

    def run(self, objective: str, *, seed: int, base: Path | None = None, own_process: bool = False, **settings: Any) -> WorldRun:
        """A run of the built-in world from `base` (where None: the built-in model), with `settings` over the demo's.

        In a process of its own its peak memory is its own too, and the libraries are loaded once more. `core_share` of its figures is what
        it got of a core, so that seconds of a busy machine can be told as seconds of one core.
        """
        settings = {"max_steps": STEPS, "eval_steps": 15, **settings}
        asked = {"objective": objective, "seed": seed, "base": self.name_of(base) if base else "built-in", **settings}

        def make(folder: Path) -> dict[str, Any]:
            chosen = settings | ({"model": str(base)} if base else {})
            arguments = (objective, seed, str(folder / "run"), chosen)
            if not own_process:
                return world_figures(*arguments)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                return pool.submit(world_figures, *arguments).result()

        figures, folder = self.once(objective, asked, make)
        kept = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
        figures |= {"objective": objective, "seed": seed, "settings": settings, "core_share": kept["cpu_seconds"] / kept["seconds"]}
        return WorldRun(figures, folder / "run" / names.MODEL, folder / "run")

    def name_of(self, path: Path) -> str:
        """What a path under the laboratory is called: the same wherever the laboratory lies."""
        return str(path.relative_to(self.folder))


def world_figures(objective: str, seed: int, output_dir: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a run that is made now."""
    return figures_of(run_demo(objective=objective, seed=seed, output_dir=output_dir, console=Console(quiet=True), settings=dict(settings)))


def figures_of(run: Run) -> dict[str, Any]:
    """The held-out course of a run, the oracle's judgement of its replies before and after, and its cost."""
    rows = [row for row in read_metrics(run.run_dir / names.METRICS) if row["split"] == "eval"]
    keys = {"step": "step", "chosen": "logps/chosen", "rejected": "logps/rejected", "accuracy": "rewards/accuracies"}
    curve = {name: [row[key] for row in rows] for name, key in keys.items()}
    return {"curve": curve, "oracle": run.summary.sections["oracle"], "cost": run.summary.sections["cost"]}


def changes(figures: Mapping[str, Any]) -> dict[str, float]:
    """Last less first of a run's held-out log-probs, nats per token: of the chosen, of the rejected, and of the margin between them."""
    chosen, rejected = (figures["curve"][side][-1] - figures["curve"][side][0] for side in ("chosen", "rejected"))
    return {"chosen": chosen, "rejected": rejected, "margin": chosen - rejected}


def course_of(run: WorldRun) -> dict[str, Any]:
    """What a record keeps of a run whose log-probs are of interest: who it was, and its curve."""
    return {name: run.figures[name] for name in ("objective", "seed", "settings", "curve")}


def _cpu_seconds() -> float:
    """Processor seconds of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system

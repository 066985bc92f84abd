"""One of several processes that train together: its settings enter on standard input, how it ended is left in a file.

`python -m orpo.pipeline.rank` is started by pipeline/launch.py, which sets RANK and WORLD_SIZE and reads what is left here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orpo.errors
from orpo.errors import InterruptedRun, OrpoError
from orpo.pipeline.given import Given
from orpo.pipeline.run import run_training
from orpo.runs.atomic import write_json_atomic
from orpo.training.config import ResolvedConfig, resolve_settings
from orpo.training.config_file import Setting
from orpo.training.guards import stops_are_errors
from orpo.training.ranks import end_ranks, is_first

BEGAN, RESULT = "began.json", "result.json"
PARTS = ("problem", "where", "doing", "expected", "fix")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a process failed, and when: the kind of error, its parts, its exit code; `trace` for an error that is none of ours."""

    seconds: float
    kind: str
    exit_code: int
    parts: Mapping[str, str]
    trace: str = ""

    def error(self, process: str) -> OrpoError:
        """The error as it was raised; `process` says where, '' when all failed alike."""
        parts = {**self.parts, "doing": "; ".join(filter(None, (self.parts["doing"], process and f"in {process}")))}
        if self.kind == InterruptedRun.__name__:
            return InterruptedRun(**parts, signal_number=self.exit_code - 128)
        error: OrpoError = getattr(orpo.errors, self.kind)(**parts)
        return error


def failures(folder: Path) -> dict[int, Failure]:
    """Rank -> how it failed, of those that have said so."""
    found = {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("[0-9]*.json")}
    return {rank: Failure(**value) for rank, value in sorted(found.items())}


def job_of(resolved: ResolvedConfig, folder: Path) -> str:
    """The settings with their origins, the notes, the command of the user, and where to leave what is left, as one line."""
    config = resolved.config
    values = {**asdict(config), **config.objective_options}
    settings = {name: (values[name], origin) for name, origin in resolved.origins.items() if origin != "default"}
    return json.dumps({"settings": settings, "notes": resolved.notes, "argv": sys.argv, "folder": str(folder.resolve())})


def settings_of(job: Mapping[str, Any]) -> ResolvedConfig:
    """What `job_of` was given."""
    given = {name: Setting(name, value, origin) for name, (value, origin) in job["settings"].items()}
    return replace(resolve_settings(given), notes=tuple(job["notes"]))


def main() -> None:
    """Trains, and ends the process at once: what is left of a process group may wait for others that are gone."""
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_starter, daemon=True).start()
    sys.argv = job["argv"]
    folder = Path(job["folder"])
    failure = _failure_of(settings_of(job), folder)
    if failure:
        write_json_atomic(folder / f"{os.environ['RANK']}.json", asdict(failure))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(failure.exit_code if failure else 0)


def _failure_of(resolved: ResolvedConfig, folder: Path) -> Failure | None:
    """None, and the run is done; or how it failed."""
    try:
        with stops_are_errors():
            signal.pthread_sigmask(signal.SIG_SETMASK, ())  # held back since the start of the process
            run = run_training(resolved, given=Given(began=lambda trainer: _note(folder / BEGAN, run_dir=trainer.args.output_dir)))
        end_ranks()
    except OrpoError as error:
        parts = {name: str(getattr(error, name)) for name in PARTS}
        return Failure(time.time(), type(error).__name__, error.exit_code, parts)
    except BaseException as error:
        parts = {**dict.fromkeys(PARTS, ""), "problem": f"{type(error).__name__}: {error}"}
        return Failure(time.time(), OrpoError.__name__, 1, parts, traceback.format_exc())
    _note(folder / RESULT, run_dir=str(run.run_dir), model_dir=str(run.model_dir))
    return None


def _note(path: Path, **facts: str) -> None:
    if is_first():
        write_json_atomic(path, facts)


def _end_with_starter() -> None:
    """Ends this process when the one that started it is gone: nobody would read the result, and the next run needs the folder."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()

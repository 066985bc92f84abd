"""What was measured of a finished run: an evaluation enters and is a file in `evaluations/`; all of them leave, read back.

The same measurement made again takes the place of the one before; one with other settings stands beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from orpo.errors import StorageError
from orpo.runs.atomic import write_json_atomic, write_text_atomic
from orpo.runs.jsontext import canonical, read_strictly, to_text
from orpo.runs.names import EVALUATIONS
from orpo.runs.redact import redact
from orpo.runs.storage import storage_errors

Kind = Literal["pairs", "win_rate", "diversity", "benchmark"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One measurement: how it was made, and its figures by name (None: there is none). `rows`: its single cases.

    `finished` is ISO 8601 in UTC, `steps` how long the run had trained by then (None: that was not known).
    """

    kind: Kind
    settings: Mapping[str, Any]
    figures: Mapping[str, float | None]
    finished: str = ""
    steps: int | None = None
    rows: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """What its file is called: the same for the same settings."""
        return f"{self.kind.replace('_', '-')}-{hashlib.sha256(canonical(self.settings)).hexdigest()[:8]}"


def write_evaluation(run_dir: Path, evaluation: Evaluation) -> Path:
    """The file that holds `evaluation`, finished now; its rows stand beside it as JSON lines."""
    folder = run_dir / EVALUATIONS
    with storage_errors(folder, "writing an evaluation"):
        folder.mkdir(exist_ok=True)
    path = folder / f"{evaluation.name}.json"
    if evaluation.rows:
        write_text_atomic(path.with_suffix(".jsonl"), "".join(to_text(redact(row)) + "\n" for row in evaluation.rows))
    told = {"kind": evaluation.kind, "finished": datetime.now(UTC).isoformat(timespec="seconds"), "steps": evaluation.steps}
    write_json_atomic(path, {**told, "settings": evaluation.settings, "figures": evaluation.figures})
    return path


def read_evaluations(run_dir: Path) -> tuple[Evaluation, ...]:
    """All evaluations of a run, the oldest first, without their rows. StorageError naming a file that is damaged."""
    folder = run_dir / EVALUATIONS
    if not folder.is_dir():
        return ()
    found = [_read(path) for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]
    return tuple(sorted(found, key=lambda evaluation: evaluation.finished))


def _read(path: Path) -> Evaluation:
    with storage_errors(path, "reading an evaluation"):
        content = path.read_bytes()
    try:
        value = read_strictly(content.decode("utf-8"))
        evaluation = Evaluation(value["kind"], value["settings"], value["figures"], value["finished"], value["steps"])
        if evaluation.kind not in get_args(Kind) or not isinstance(evaluation.finished, str):
            raise ValueError(f"kind {evaluation.kind!r}, finished {evaluation.finished!r}")
        if not isinstance(evaluation.settings, dict) or not isinstance(evaluation.figures, dict):
            raise ValueError("settings and figures are objects")
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(
            f"the file is damaged: {error}",
            where=str(path),
            doing="reading an evaluation",
            fix="delete it, and measure again with `orpo eval`",
        ) from None
    return evaluation

"""The SFT run that a report is read against: a run enters, the run beside it leaves, where there is one."""

from __future__ import annotations

from pathlib import Path

from orpo.errors import OrpoError
from orpo.report import facts
from orpo.runs.names import SUMMARY
from orpo.runs.summary import RunData, read_run, read_summary

MAX_LOOKED_AT = 200
RULE = "the newest finished SFT run in the same folder that has the same model and read the same bytes for training and held-out pairs"


def sft_beside(run: RunData) -> RunData | None:
    """The run that RULE names; None for a run of SFT, and where there is none. The newest MAX_LOOKED_AT runs are looked at."""
    if facts.text(run, "objective") in (None, "sft") or not run.data_report:
        return None
    finished = [(when, path) for path in _newest_beside(run.path.resolve()) if (when := _finished_sft(path))]
    for _, path in sorted(finished, reverse=True):
        other = _read(path)
        if other is not None and _same(run, other):
            return other
    return None


def _newest_beside(mine: Path) -> list[Path]:
    """The other run directories in the folder of `mine`; none where it may not be listed: a run can lie in somebody else's folder."""
    try:
        written = [(path.stat().st_mtime_ns, path.parent) for path in mine.parent.glob(f"*/{SUMMARY}") if path.parent != mine]
    except OSError:
        return []
    return [path for _, path in sorted(written, reverse=True)[:MAX_LOOKED_AT]]


def _finished_sft(path: Path) -> str | None:
    """When the SFT run in `path` finished; None for every other folder, a damaged one too: it is not the one that is reported on."""
    try:
        summary = read_summary(path)
    except OrpoError:
        return None
    is_sft = facts.mapping(summary.sections.get("model")).get("objective") == "sft"
    return summary.finished if is_sft and summary.status == "done" else None


def _read(path: Path) -> RunData | None:
    try:
        return read_run(path)
    except OrpoError:
        return None


def _same(run: RunData, other: RunData) -> bool:
    return _compared(run) == _compared(other) and bool(facts.data_files(run))


def _compared(run: RunData) -> tuple[object, ...]:
    """What two runs must agree in: the model, the bytes of the data, and how much of them was held out by which seed."""
    report = facts.mapping(run.data_report)
    files = sorted((use, str(file.get("sha256"))) for use, file in facts.data_files(run))
    held_out = None if report.get("eval_data") else (facts.setting(run, "holdout"), facts.setting(run, "seed"))
    return facts.text(run, "model"), tuple(files), report.get("held_out"), held_out

"""Where to go on: a run directory enters, its newest valid checkpoint leaves, with one line per skipped one, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orpo.errors import CheckpointError
from orpo.runs.jsontext import plain, to_text
from orpo.runs.manifest import CheckpointFacts, Manifest, read_manifest
from orpo.runs.names import checkpoint_paths
from orpo.runs.redact import redact
from orpo.runs.run_id import read_run_id
from orpo.runs.verification import verify

NOT_SET = "(not set)"
_WIDEST_CELL = 64  # a sha256 fits
_CONTEXT = 10


class Skipped(NamedTuple):
    """A checkpoint that cannot be used, and why."""

    path: Path
    reasons: list[str]

    @property
    def line(self) -> str:
        """One readable line."""
        more = f" (and {len(self.reasons) - 1} more)" if len(self.reasons) > 1 else ""
        return f"skipped {self.path.name}: {self.reasons[0]}{more}"


class Change(NamedTuple):
    """A field whose value in the checkpoint differs from the value now."""

    field: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The checkpoint to go on from, its manifest, and the newer ones that were skipped."""

    path: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]


def newest_valid(run_dir: Path, *, required: Sequence[str] = ()) -> tuple[Path | None, list[Skipped]]:
    """The valid checkpoint of the highest step, None when there is none; and every newer one with the reasons why it was skipped."""
    run_id = read_run_id(run_dir)
    skipped: list[Skipped] = []
    for _, path in checkpoint_paths(run_dir):
        reasons = verify(path, run_id=run_id, required=required)
        if not reasons:
            return path, skipped
        skipped.append(Skipped(path, reasons))
    return None, skipped


def find_valid_checkpoints(run_dir: Path, *, required: Sequence[str] = ()) -> list[Path]:
    """Every valid checkpoint of this run, newest first. Reads all of them."""
    run_id = read_run_id(run_dir)
    return [path for _, path in checkpoint_paths(run_dir) if not verify(path, run_id=run_id, required=required)]


def resume_point(run_dir: Path, *, required: Sequence[str] = ()) -> ResumePoint | None:
    """Where to resume, None for a directory without checkpoints. CheckpointError when there are some and none is valid."""
    path, skipped = newest_valid(run_dir, required=required)
    if path is not None:
        return ResumePoint(path, read_manifest(path), tuple(skipped))
    if not skipped:
        return None
    raise CheckpointError(
        f"none of the {len(skipped)} checkpoints here is valid\n" + "\n".join(f"  {entry.line}" for entry in skipped),
        where=str(run_dir),
        doing="looking for a checkpoint to resume from",
        fix="bring back a good copy, or give --fresh to start over (nothing here is deleted by that)",
    )


def compare_identity(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Fields that differ, nested ones joined with dots, sorted by name. 1 and 1.0 are equal, 1 and true are not."""
    before, after = _flat(redact(plain(old))), _flat(redact(plain(new)))
    names = sorted(before.keys() | after.keys())
    return [Change(name, *_cells(before, after, name)) for name in names if not _same(before, after, name)]


def changed_since(manifest: Manifest, facts: CheckpointFacts) -> list[Change]:
    """What must match and does not: identity fields, data fingerprint (`data.`), base model (`base_model.`)."""
    return compare_identity(_must_match(manifest.facts), _must_match(facts))


def changed_freely(manifest: Manifest, facts: CheckpointFacts) -> list[Change]:
    """Fields that may change and did; to be shown, because they apply from here on."""
    return compare_identity(manifest.facts.free, facts.free)


def identity_error(changes: Sequence[Change], *, checkpoint: Path) -> CheckpointError:
    """The refusal to resume: a table of old and new values and the flag that allows it."""
    assert changes, "nothing differs, there is nothing to refuse"
    rows = [Change("field", "in the checkpoint", "now"), *changes]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = "\n".join(f"  {row.field:<{widths[0]}}  {row.old:<{widths[1]}}  {row.new}" for row in rows)
    return CheckpointError(
        f"this run was started with other settings or data\n{table}",
        where=str(checkpoint),
        doing="resuming",
        expected="the settings and data of the checkpoint",
        fix="restore them, give --resume-anyway to go on with the new ones, or --fresh to start over",
    )


def _must_match(facts: CheckpointFacts) -> dict[str, Any]:
    model = facts.base_model
    base_model = {"id": model.id, "revision": model.revision, "weights_sha256": model.weights_sha256}
    return {**facts.identity, "data": facts.data, "base_model": base_model}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat.update(_flat(item, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _same(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> bool:
    if (name in before) != (name in after):
        return False
    old, new = before[name], after[name]
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def _cells(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Both values as text that shows the difference: quoted where they would look alike, long ones from just before where they part."""
    texts = [_text(values, name, quoted=False) for values in (before, after)]
    if texts[0] == texts[1]:
        texts = [_text(values, name, quoted=True) for values in (before, after)]
    parting = next((place for place, (old, new) in enumerate(zip(*texts, strict=False)) if old != new), min(map(len, texts)))
    start = max(0, parting - _CONTEXT) if max(map(len, texts)) > _WIDEST_CELL else 0
    old, new = (("..." if start else "") + text[start:] for text in texts)
    return _cut(old), _cut(new)


def _text(values: Mapping[str, Any], name: str, *, quoted: bool) -> str:
    if name not in values:
        return NOT_SET
    value = values[name]
    return value if isinstance(value, str) and value.isascii() and value.isprintable() and not quoted else to_text(value)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST_CELL else text[: _WIDEST_CELL - 3] + "..."

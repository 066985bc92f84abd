"""Where the pairs of another tool's file lie: its entries enter, paths or Hub ids leave, with what they could not say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo.data.file_types import named_type
from orpo.data.hub import hub_id
from orpo.moving_in.tool import Became
from orpo.training.config_values import Unfit

LOADERS = ("json", "csv", "parquet", "arrow", "text")
"""What stands where a path belongs when `datasets` is told the files apart."""


@dataclass(frozen=True, slots=True)
class Located:
    """`data` as orpo names it, columns that play another role here (role -> column), and sentences on what was left behind."""

    data: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()


def became(located: Sequence[Located], *, ours: str = "data", written: str = "", why: str = "") -> Became:
    """What became of the entries of a file: the setting `ours`, `columns` where one is needed, and what was left behind."""
    paths = [path for one in located for path in one.data]
    left = list(dict.fromkeys(sentence for one in located for sentence in one.left))
    settings: dict[str, Any] = {ours: paths[0] if len(paths) == 1 else paths}
    mapping = located[0].columns
    if mapping and ours == "data":
        settings["columns"] = ",".join(f"{role}={column}" for role, column in mapping.items())
    if any(one.columns != mapping for one in located):
        left.append("the datasets name their columns differently, and one mapping holds for all: bring them into one shape")
    if left:
        return Became("unsupported", settings, "; ".join(left), written)
    return Became("changed" if why else "carried", settings, why, written)


def located(path: str, *, name: str | None = None, revision: str | None = None, split: str | None = None) -> Located:
    """A file, a folder or a Hub dataset with its configuration, revision and split, as one text."""
    left: list[str] = []
    if split is not None and not re.fullmatch(r"[\w.-]+", split):
        left.append(f"the part {split!r} of a split: {split.partition('[')[0]} is read whole; make a smaller file, or use max_steps")
        split = split.partition("[")[0]
    place = Path(path).expanduser()
    if place.is_file() or (named_type(place) is not None and not place.is_dir()):
        return Located((path,), left=tuple(left))
    if place.is_dir():
        return Located((f"{path}:{split}" if split and _is_saved(place) else path,), left=tuple(left))
    if hub_id(path) is None:
        left.append(f"{path} is neither a file here nor a Hub id (org/name): set data")
        return Located((path,), left=tuple(left))
    revised = f"{path}@{revision}" if revision else path
    tail = f"{name}/{split or 'train'}" if name else split or ""
    return Located((f"{revised}:{tail}" if tail else revised,), left=tuple(left))


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file()


def from_entry(entry: Any) -> Located:
    """One entry of a list of datasets (path, name, revision, split, data_files), as TRL and Axolotl write them. Raises Unfit."""
    if isinstance(entry, str):
        return located(entry)
    if not isinstance(entry, Mapping) or not entry.get("path"):
        raise Unfit("datasets with a path each")
    files, path = entry.get("data_files"), str(entry["path"])
    if not files:
        return located(path, name=entry.get("name"), revision=entry.get("revision"), split=entry.get("split"))
    names = [files] if isinstance(files, str) else list(files.values()) if isinstance(files, Mapping) else list(files)
    if path in LOADERS or named_type(Path(path)) is not None:
        return Located(tuple(map(str, names)))
    if Path(path).is_dir():
        return Located(tuple(str(Path(path) / str(name)) for name in names))
    what = f"single files of the Hub dataset {path} ({', '.join(map(str, names))}): fetch them (hf download) and name them in data"
    return Located((path,), left=(what,))

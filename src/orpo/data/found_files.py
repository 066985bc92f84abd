"""The files behind a path: one file, the files of a folder, or an error with the nearest names."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from orpo.data.byte_streams import unreadable
from orpo.data.file_types import ACCEPTED, named_type
from orpo.data.row import Problem
from orpo.data.splits import chosen_split
from orpo.errors import DataError

_SHARD = re.compile(r"[-_.]?\d+(-of-\d+)?$")
_SPLIT_WORDS = ("train", "test", "validation", "valid", "val", "dev", "eval", "heldout")
_SIDE_FILES = re.compile(r"\.|_SUCCESS$|readme|license|changelog|dataset_infos?\.json$", re.IGNORECASE)


def files_in(folder: Path, *, split: str | None = None) -> tuple[list[Path], list[Problem]]:
    """The data files directly in `folder`, sorted, of one split if their names tell splits apart; and what to tell about it."""
    names = _sorted_names(folder)
    files = [folder / name for name in names if named_type(folder / name) and (folder / name).is_file()]
    if not files:
        raise _no_files(folder, names)
    kinds = {named_type(path).kind for path in files}  # type: ignore[union-attr]
    if len(kinds) > 1:
        listed = ", ".join(path.name for path in files[:10])
        raise DataError(
            f"the folder mixes types ({', '.join(sorted(kinds))}): {listed}",
            where=str(folder),
            fix="name one file, or a folder with one type",
        )
    kept, told = _of_split(files, folder, split)
    skipped = [name for name in names if folder / name not in files]
    if skipped:
        message = f"{folder}: not read, as no data file by name: {', '.join(skipped[:10])}{' ...' if len(skipped) > 10 else ''}"
        told.append(Problem("files-skipped", message, None, severity="warning"))
    return kept, told


def missing(path: Path) -> DataError:
    """The error for a path that is not there, with the nearest names of the deepest folder that is."""
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    part = path.relative_to(folder).parts[0] if path.is_relative_to(folder) else path.name
    names = _sorted_names(folder)
    near = get_close_matches(part, names, n=3, cutoff=0.5) or [name for name in names if named_type(Path(name))][:3]
    hint = f"nearest names in {folder}: {', '.join(near)}" if near else f"{folder} holds nothing of a similar name"
    return DataError("there is no such file or folder", where=str(path), doing="opening data", expected=ACCEPTED, fix=hint)


def unknown_type(path: Path) -> DataError:
    """The error for a file whose name has no accepted ending."""
    inner = named_type(Path(path.stem)) if path.suffix in (".gz", ".zst") else None
    fix = "decompress it first: parquet and arrow are compressed inside" if inner else "rename or convert the file"
    return DataError(
        f"the ending {''.join(path.suffixes[-2:]) or '(none)'} is of no known type", where=str(path), expected=ACCEPTED, fix=fix
    )


def _sorted_names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if not _SIDE_FILES.match(entry.name))
    except OSError as error:
        raise unreadable(str(folder), error) from error


def _no_files(folder: Path, names: list[str]) -> DataError:
    inner = [name for name in names if (folder / name).is_dir()]
    found = f"; it holds: {', '.join(names[:10])}" if names else "; it is empty"
    fix = f"name a folder inside it, such as {folder / inner[0]}" if inner else ""
    return DataError(f"the folder holds no data files{found}", where=str(folder), expected=ACCEPTED, fix=fix)


def _of_split(files: list[Path], folder: Path, split: str | None) -> tuple[list[Path], list[Problem]]:
    """Those of `files` that belong to `split`; all of them when their names tell no splits apart. Train and test are never mixed."""
    by_split: dict[str, list[Path]] = {}
    for path in files:
        by_split.setdefault(_split_of(path), []).append(path)
    told_apart = any(re.match(rf"({'|'.join(_SPLIT_WORDS)})([-_.]|$)", name) for name in by_split)
    if not told_apart and split is None:
        return files, []
    name, told = chosen_split(by_split, split, where=str(folder))
    return by_split[name], told


def _split_of(path: Path) -> str:
    """The name of a file without its endings and shard number: train_prefs for train_prefs-00000-of-00003.parquet."""
    return _SHARD.sub("", path.name.split(".", 1)[0]) or path.name.split(".", 1)[0]

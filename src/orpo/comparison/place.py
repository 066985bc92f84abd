"""Where a comparison writes and goes on: its folder is chosen, locked, and checked to be that of the same comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orpo.errors import ConfigError, OrpoError
from orpo.runs import names
from orpo.runs.atomic import write_json_atomic
from orpo.runs.jsontext import plain, read_strictly
from orpo.runs.lock import RunLock
from orpo.runs.resume import NOT_SET, Change, compare_identity
from orpo.runs.storage import storage_errors

ASKED = "asked.json"
PREFIX = "compare"

Say = Callable[[str], None]


@contextmanager
def comparison_place(output_dir: str | None, *, parent: Path, asked: Mapping[str, Any], fresh: bool, say: Say) -> Iterator[Path]:
    """The folder of a comparison, locked while the block runs; `asked` is what must be the same to go on in it.

    Without `output_dir` an unfinished comparison that asked the same is taken up again, or a new numbered folder is made. With it that
    folder is the comparison: one that asked something else is refused, and moved aside with `fresh`.
    """
    if output_dir:
        folder = _given(Path(output_dir), fresh=fresh, say=say)
    else:
        folder = (None if fresh else _unfinished(parent, asked, say=say)) or names.next_run_dir(parent, PREFIX)
    with RunLock(folder):
        path = folder / ASKED
        if path.exists():
            require_same(_read(path), asked, folder)
        else:
            write_json_atomic(path, asked)
        yield folder


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Nothing; raises ConfigError with a table where `now` asks for another comparison than `before` did."""
    changes = compare_identity(_by_entry(before), _by_entry(now))
    if not changes:
        return
    rows = [Change("setting", "in this folder", "now"), *changes]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = "\n".join(f"  {row.field:<{widths[0]}}  {row.old:<{widths[1]}}  {row.new}" for row in rows)
    raise ConfigError(
        f"this comparison was started with other settings or data\n{table}",
        where=str(folder),
        doing="going on with a comparison",
        expected=f"the same settings ({NOT_SET} where there was none)",
        fix="restore them, give another --output-dir, or --fresh to start over (this folder is then moved aside)",
    )


def _by_entry(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`asked` with lists as mappings from position to entry, so that a table of changes names the entry that changed."""
    return {
        name: {str(index): item for index, item in enumerate(value)} if isinstance(value, list) and any(map(_is_deep, value)) else value
        for name, value in plain(asked).items()
    }


def _is_deep(value: object) -> bool:
    return isinstance(value, dict | list)


def _given(folder: Path, *, fresh: bool, say: Say) -> Path:
    if folder.is_file():
        raise ConfigError(f"--output-dir {folder} is a file", expected="a folder, or a name that is free", fix="choose another")
    if folder.is_dir() and any(path.name != names.LOCK for path in folder.iterdir()):
        if not (folder / ASKED).is_file():
            raise ConfigError(
                f"--output-dir {folder} is not empty and holds no comparison",
                expected="an empty folder, a new one, or an earlier comparison",
                fix="choose another --output-dir; nothing in it was touched",
            )
        if fresh:
            with RunLock(folder):  # moving it away under its writer would lose it
                number = next(number for number in range(1, 10**6) if not folder.with_name(f"{folder.name}.old-{number}").exists())
            folder.rename(folder.with_name(f"{folder.name}.old-{number}"))
            say(f"--fresh: the earlier comparison was moved to {folder}.old-{number}")
    with storage_errors(folder, "making the folder of a comparison"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unfinished(parent: Path, asked: Mapping[str, Any], *, say: Say) -> Path | None:
    """The newest comparison that is not done, asked the same, and is held by no process."""
    for folder in sorted(parent.glob(f"{PREFIX}-*"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            if _status(folder) == "done" or compare_identity(plain(_read(folder / ASKED)), plain(asked)):
                continue
            with RunLock(folder):
                pass
        except (OrpoError, OSError, ValueError):
            continue
        say(f"unfinished   {folder} is taken up again; --fresh starts over in a new folder")
        return folder
    return None


def _status(folder: Path) -> str:
    path = folder / names.COMPARISON
    return str(_read(path).get("status")) if path.exists() else "running"


def _read(path: Path) -> dict[str, Any]:
    with storage_errors(path, "reading a comparison"):
        text = path.read_text(encoding="utf-8")
    value = read_strictly(text)
    assert isinstance(value, dict), f"{path} holds an object"
    return value

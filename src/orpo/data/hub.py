"""Datasets that the library `datasets` reads: ids on the Hub and folders written by save_to_disk. Never runs code from a dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from orpo.core.records import Source
from orpo.data.byte_streams import digest_of
from orpo.data.hub_reach import hub_in_reach
from orpo.data.row import Problem, Row
from orpo.data.row_file import FileDigest
from orpo.data.splits import chosen_split
from orpo.data.table_rows import BATCH_ROWS, batch_items
from orpo.errors import DataError

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^:@\s]+))?(:((?P<config>[\w.-]+)/)?(?P<split>[\w.-]+))?")


class HubId(NamedTuple):
    """org/name@revision:config/split, of which only org/name is needed."""

    repository: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None


def hub_id(text: str) -> HubId | None:
    """The parts of a Hub id, None if `text` has not the form of one."""
    match = _ID.fullmatch(text)
    if match is None or text.startswith((".", "/", "~")):
        return None
    return HubId(match["repository"], match["revision"], match["config"], match["split"])


class DatasetRows:
    """One split of a dataset, memory-mapped by `datasets`; a position is the index of a row."""

    def __init__(self, dataset: Any, name: str, *, description: str) -> None:
        self.name, self.description = name, description
        self._dataset = dataset.with_format("arrow")
        self._json_columns = {column: feature for column, feature in dataset.features.items() if "Json(" in repr(feature)}

    def items(self) -> Iterator[tuple[int, Row | Problem]]:
        """(row index, row or problem), in order."""
        index = 0
        for table in self._dataset.iter(batch_size=BATCH_ROWS):
            yield from ((position, self._decoded(item)) for position, item in batch_items(table, index, self.name))
            index += table.num_rows
        if index == 0:
            yield 0, Problem("empty-file", "the split holds no rows", Source(self.name, 1, is_line=False), fix="name another split")

    def read(self, position: int, number: int) -> Row:
        """The row at index `position`."""
        item = self._decoded(next(batch_items(self._dataset[position : position + 1], number - 1, self.name))[1])
        if isinstance(item, Problem):
            raise DataError(item.message, where=str(item.source), doing="reading a row again", fix=item.fix)
        return item

    def digests(self) -> list[FileDigest]:
        """Hash and size of each arrow file behind the split, named without the folder that a machine keeps them in."""
        paths = [Path(entry["filename"]) for entry in self._dataset.cache_files]
        return [digest_of(path, f"{self.name}/{path.name}") for path in paths]

    def _decoded(self, item: Row | Problem) -> Row | Problem:
        # `datasets` stores columns of mixed types as JSON text; media stay as they are stored, bytes and path.
        if not self._json_columns or isinstance(item, Problem):
            return item
        import datasets

        mixed = datasets.Features(self._json_columns)
        decoded = mixed.decode_example({column: item.value[column] for column in self._json_columns})
        return Row({**item.value, **decoded}, item.source)


def open_saved(folder: Path, name: str, *, split: str | None = None) -> tuple[DatasetRows, list[Problem]]:
    """The rows of a save_to_disk folder, and what to tell about the split."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder), keep_in_memory=False)
    except Exception as error:  # `datasets`, json and pyarrow raise what they like for a damaged folder
        raise DataError(f"the save_to_disk folder cannot be read: {_first_line(error)}", where=name, fix="save it again") from error
    if not isinstance(saved, datasets.DatasetDict):
        if split is not None:
            raise DataError(
                f"there is no split {split!r}: the folder holds one dataset without splits", where=name, fix=f"leave out :{split}"
            )
        return DatasetRows(saved, name, description="save_to_disk folder"), []
    split, told = chosen_split(saved, split, where=name)
    return DatasetRows(saved[split], f"{name}:{split}", description=f"save_to_disk folder, split {split}"), told


def open_hub(wanted: HubId) -> tuple[DatasetRows, list[Problem]]:
    """The rows of a dataset on the Hub or in its local cache, and what to tell about the split."""
    name = wanted.repository + (f"@{wanted.revision}" if wanted.revision else "")
    try:
        with _cache_alone(not hub_in_reach()):
            return _opened(wanted, name)
    except DataError:
        raise
    except Exception as error:  # network, hub and builders raise a dozen unrelated types
        raise _unreachable(name, wanted, error) from error


def _opened(wanted: HubId, name: str) -> tuple[DatasetRows, list[Problem]]:
    import datasets

    builder = datasets.load_dataset_builder(wanted.repository, wanted.config, revision=wanted.revision)
    _check_revision(builder, wanted, name)
    split, told = chosen_split(_splits(builder), wanted.split, where=name)
    dataset = datasets.load_dataset(wanted.repository, wanted.config, revision=wanted.revision, split=split)
    return DatasetRows(dataset, f"{name}:{split}", description=f"Hub dataset {name}, split {split}"), told


@contextmanager
def _cache_alone(asked: bool) -> Iterator[None]:
    """Inside, `datasets` and the Hub's library go by the cache where that is `asked`, as with HF_HUB_OFFLINE=1, which both read once."""
    import datasets.config
    import huggingface_hub.constants

    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = module.HF_HUB_OFFLINE or asked
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _splits(builder: Any) -> list[str]:
    names = builder.info.splits or getattr(builder.config, "data_files", None) or {}
    return [str(name) for name in names]


def _check_revision(builder: Any, wanted: HubId, name: str) -> None:
    """Raises `DataError` where `datasets` would answer with whatever revision its cache holds: it does so when the Hub is out of reach."""
    from datasets.packaged_modules.cache.cache import Cache

    if wanted.revision and isinstance(builder, Cache) and not str(builder.hash).startswith(wanted.revision):
        raise DataError(
            f"the Hub was not reached, and the cache holds the revision {builder.hash}, which is not known to be {wanted.revision}",
            where=name,
            fix=f"go online, or accept the cached one: {wanted.repository}@{builder.hash}",
        )


def _unreachable(name: str, wanted: HubId, error: Exception) -> DataError:
    offline = [f"{key}={os.environ[key]}" for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if os.environ.get(key)]
    tried = f"load_dataset({wanted.repository!r}, revision={wanted.revision!r}), trust_remote_code never"
    fixes = ["give a path to local files (an id needs the Hub or an earlier download)"]
    if not offline and not hub_in_reach():
        return DataError(
            "not readable from the Hub: there is no network, and no earlier download is in the cache", where=name, doing=tried, fix=fixes[0]
        )
    if offline:
        fixes.insert(0, f"unset {' and '.join(part.split('=')[0] for part in offline)} to allow the network")
    elif "gated" in str(error) or "private" in str(error) or "doesn't exist" in str(error):
        fixes.insert(0, "check the name; for a private or gated dataset run `hf auth login`")
    elif "onfig name is missing" in str(error):
        fixes.insert(0, f"name the configuration: {wanted.repository}:CONFIG/SPLIT")
    if not offline:
        fixes.append("set HF_HUB_OFFLINE=1 to use an earlier download without asking the Hub")
    state = f" ({', '.join(offline)} forbids the network)" if offline else ""
    return DataError(f"not readable from the Hub{state}: {_first_line(error)}", where=name, doing=tried, fix="; or ".join(fixes))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400] or type(error).__name__

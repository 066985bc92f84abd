"""Saved datasets and Hub ids. No network: the Hub's local cache is made by `datasets` itself from a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orpo.data.hub import HubId, hub_id
from orpo.data.row import Problem, Row
from orpo.data.rows import open_data
from orpo.errors import DataError

datasets = pytest.importorskip("datasets")
ROWS = [{"prompt": f"p{i}", "chosen": [{"role": "user", "content": "x", "name": None}]} for i in range(300)]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An id whose splits train_prefs, test_prefs and test_sft lie in the cache of `datasets`; gives the revision of the cached copy."""
    folder, cache = tmp_path / "prefs", tmp_path / "cache"
    (folder / "data").mkdir(parents=True)
    for split, rows in (("train_prefs", ROWS), ("test_prefs", ROWS[:2]), ("test_sft", ROWS[:1])):
        datasets.Dataset.from_list(rows).to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "made"))
    shutil.copytree(tmp_path / "made" / "prefs", cache / "org___prefs")
    (revision,) = [path.name for path in (cache / "org___prefs" / "default" / "0.0.0").iterdir() if path.is_dir()]
    return revision


def rows_of(items: list[Row | Problem]) -> list[Any]:
    return [item.value for item in items if isinstance(item, Row)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("org/name", HubId("org/name")),
        ("org/na-me.v2@main", HubId("org/na-me.v2", "main")),
        ("org/name:test_prefs", HubId("org/name", None, None, "test_prefs")),
        ("org/name@refs/pr/3:train", HubId("org/name", "refs/pr/3", None, "train")),
        ("org/name:default/train", HubId("org/name", None, "default", "train")),
        ("name", None),
        ("./org/name", None),
        ("a/b/c", None),
        ("org/name:", None),
        ("org/na me", None),
    ],
)
def test_the_parts_of_a_hub_id(text: str, parts: HubId | None) -> None:
    assert hub_id(text) == parts


def test_without_network_the_error_says_what_was_tried_and_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as error:
        open_data("org/nothing@v1")
    text = str(error.value)
    assert text.startswith("org/nothing@v1: not readable from the Hub (HF_HUB_OFFLINE=1 forbids the network)")
    assert "load_dataset('org/nothing', revision='v1')" in text
    assert "unset HF_HUB_OFFLINE" in text
    assert "path to local files" in text


def test_train_prefs_is_chosen_among_the_splits_of_a_cached_dataset_and_said(cached: str) -> None:
    reader = open_data("org/prefs")
    warning, *items = reader
    assert isinstance(warning, Problem)
    assert (warning.kind, warning.severity) == ("split-chosen", "warning")
    assert warning.message.startswith("org/prefs: read the split train_prefs; not read: ")
    assert rows_of(items) == ROWS
    assert str(items[299].source) == "org/prefs:train_prefs:row 300"
    assert reader.description == "Hub dataset org/prefs, split train_prefs"


def test_a_named_split_is_read_and_rows_are_found_again(cached: str) -> None:
    for reader in (
        open_data("org/prefs:test_prefs"),
        open_data("org/prefs", split="test_prefs"),
        open_data("org/prefs:default/test_prefs"),
    ):
        pairs = list(reader.iter_with_handles())
        assert rows_of([item for _, item in pairs]) == ROWS[:2]
        assert [reader.read(handle) for handle, _ in reversed(pairs) if handle] == [item for _, item in reversed(pairs)]


def test_the_fingerprint_of_a_hub_dataset_does_not_name_the_folder_of_the_cache(cached: str, tmp_path: Path) -> None:
    (file,) = open_data("org/prefs:test_sft").files
    assert file.path.startswith("org/prefs:test_sft/")
    assert (len(file.sha256), str(tmp_path) in file.path) == (64, False)
    assert file.size > 0


def test_a_split_that_is_not_there_lists_those_that_are(cached: str) -> None:
    with pytest.raises(DataError, match="no split 'train'") as error:
        open_data("org/prefs:train")
    assert sorted(error.value.expected.removeprefix("one of: ").split(", ")) == ["test_prefs", "test_sft", "train_prefs"]
    with pytest.raises(DataError, match="two splits are named"):
        open_data("org/prefs:train", split="test")


def test_a_revision_that_the_cache_cannot_vouch_for_is_refused(cached: str) -> None:
    assert rows_of(list(open_data(f"org/prefs@{cached}:test_sft"))) == ROWS[:1]
    with pytest.raises(DataError, match=f"the cache holds the revision {cached}, which is not known to be v9"):
        open_data("org/prefs@v9:test_sft")


def test_a_saved_dataset_and_a_saved_dictionary_of_splits_are_read(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": saved, "test": saved.select([5, 6])}).save_to_disk(str(tmp_path / "many"))
    assert rows_of(list(open_data(str(tmp_path / "one")))) == ROWS
    assert rows_of(list(open_data(f"{tmp_path / 'many'}:test"))) == ROWS[5:7]
    warning, *items = open_data(str(tmp_path / "many"))
    assert isinstance(warning, Problem)
    assert "read the split train; not read: test" in warning.message
    assert str(items[0].source) == f"{tmp_path / 'many'}:train:row 1"
    with pytest.raises(DataError, match="without splits"):
        open_data(str(tmp_path / "one"), split="train")


def test_a_damaged_saved_dataset_is_a_data_error(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    next((tmp_path / "one").glob("*.arrow")).unlink()
    with pytest.raises(DataError, match="save_to_disk folder cannot be read"):
        open_data(str(tmp_path / "one"))


def test_a_column_of_mixed_types_comes_as_values_not_as_json_text(tmp_path: Path) -> None:
    features = datasets.Features({"a": datasets.Json(), "b": datasets.Value("int64")})
    datasets.Dataset.from_list([{"a": {"x": 1}, "b": 1}, {"a": ["s"], "b": 2}], features=features).save_to_disk(str(tmp_path / "one"))
    reader = open_data(str(tmp_path / "one"))
    pairs = list(reader.iter_with_handles())
    assert rows_of([item for _, item in pairs]) == [{"a": {"x": 1}, "b": 1}, {"a": ["s"], "b": 2}]
    assert [reader.read(handle) for handle, _ in pairs if handle] == [item for _, item in pairs]


def test_code_in_a_dataset_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def record(*arguments: Any, **options: Any) -> None:
        asked.append(options)
        raise RuntimeError("Dataset scripts are no longer supported, but found name.py")

    monkeypatch.setattr(datasets, "load_dataset_builder", record)
    with pytest.raises(DataError, match="Dataset scripts are no longer supported"):
        open_data("org/name")
    assert asked
    assert not asked[0].get("trust_remote_code")

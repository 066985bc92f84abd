from __future__ import annotations

import copy
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpo.core.records import Source
from orpo.core.tokens import TokenizedExample
from orpo.data.store import TokenStore
from orpo.errors import StorageError


def example(
    prompt: list[int], completions: list[list[int]], number: int = 1, file: str = "a.jsonl", **values: tuple[Any, ...]
) -> TokenizedExample:
    arrays = tuple(np.array(ids, np.int32) for ids in completions)
    return TokenizedExample(np.array(prompt, np.int32), arrays, Source(file, number, file.endswith("jsonl")), **values)


def plain(item: TokenizedExample) -> tuple[list[int], list[list[int]], Source]:
    return item.prompt_ids.tolist(), [ids.tolist() for ids in item.completions], item.source


IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6)
EXAMPLES = st.builds(
    example, IDS, st.lists(IDS, min_size=1, max_size=4), st.integers(1, 2**40), st.sampled_from(["a.jsonl", "b.jsonl", "c.parquet"])
)


@settings(max_examples=50, deadline=None)
@given(st.lists(EXAMPLES, max_size=12))
def test_examples_come_back_as_they_went_in_with_their_places(examples):
    store = TokenStore()
    for item in examples:
        store.append(item)
    lengths = store.lengths
    assert [plain(item) for item in store] == [plain(item) for item in examples]
    assert len(store) == len(examples)
    assert lengths.prompt.tolist() == [len(item.prompt_ids) for item in examples]
    assert lengths.chosen.tolist() == [len(item.completions[0]) for item in examples]
    assert lengths.rejected.tolist() == [len(item.completions[1]) if len(item.completions) > 1 else 0 for item in examples]
    assert lengths.num_completions.tolist() == [len(item.completions) for item in examples]
    assert lengths.completions_total.tolist() == [sum(map(len, item.completions)) for item in examples]
    assert lengths.longest.tolist() == [max(map(len, item.completions)) for item in examples]
    assert lengths.completions.tolist() == [len(ids) for item in examples for ids in item.completions]


@settings(max_examples=50, deadline=None)
@given(st.lists(EXAMPLES, max_size=12), st.randoms(use_true_random=False), st.booleans())
def test_labels_and_scores_come_back_with_their_examples_also_from_slices(examples, random, has_labels):
    def valued(item):
        num = len(item.completions)
        labels, scores = tuple(random.random() < 0.5 for _ in range(num)), tuple(random.uniform(-9, 9) for _ in range(num))
        return replace(item, labels=labels) if has_labels else replace(item, scores=scores)

    examples = [valued(item) for item in examples]
    store = TokenStore()
    for item in examples:
        store.append(item)
    for found, expected in ((list(store), examples), (store[1:7:2], examples[1:7:2])):
        assert [(plain(item), item.labels, item.scores) for item in found] == [(plain(item), item.labels, item.scores) for item in expected]
    assert store.labels.tolist() == [label for item in examples for label in item.labels]
    assert store.scores.tolist() == [score for item in examples for score in item.scores]


def test_a_copy_of_an_example_keeps_its_labels_and_scores():
    store = TokenStore()
    store.append(example([1], [[2], [3]], labels=(True, False), scores=(2.0, 0.5)))
    assert (copy.deepcopy(store[0]).labels, replace(store[0], prompt_ids=store[0].prompt_ids[:1]).scores) == ((True, False), (2.0, 0.5))


def test_examples_with_and_without_labels_are_never_in_one_store():
    store = filled(1)
    with pytest.raises(AssertionError, match="of all examples or of none"):
        store.append(example([1], [[2]], labels=(True,)))
    with pytest.raises(AssertionError, match="one label and one score per completion"):
        store.append(example([1], [[2], [3]], labels=(True,)))


def filled(num: int) -> TokenStore:
    store = TokenStore()
    for number in range(num):
        store.append(example([number], [[number, number + 1], [number]], number + 1))
    return store


def test_indices_count_from_the_end_slices_give_lists_and_others_raise():
    store = filled(5)
    assert plain(store[-1]) == plain(store[4]) == ([4], [[4, 5], [4]], Source("a.jsonl", 5))
    assert [item.source.number for item in store[1:3]] == [2, 3]
    with pytest.raises(IndexError, match="example 5 of 5"):
        store[5]


def test_ids_can_be_changed_by_the_reader_without_changing_the_store():
    store = filled(2)
    store[0].prompt_ids[0] = 77
    assert store[0].prompt_ids.tolist() == [0]


def test_nothing_is_left_in_the_folder(tmp_path):
    store = TokenStore(tmp_path)
    store.append(example([1], [[2], [3]]))
    assert plain(store[0])[0] == [1]
    assert list(tmp_path.iterdir()) == []


def test_threads_that_read_at_once_all_see_the_right_rows():
    store = filled(500)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda index: store[index].prompt_ids[0], range(500))) == list(range(500))


def _read_in_child(store: TokenStore, index: int) -> None:
    os._exit(0 if store[index].prompt_ids.tolist() == [index] else 1)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_processes_read_beside_their_parent():
    store = filled(50)
    assert store[3].prompt_ids.tolist() == [3]
    children = [multiprocessing.get_context("fork").Process(target=_read_in_child, args=(store, index)) for index in (0, 7, 49)]
    for child in children:
        child.start()
    assert store[8].prompt_ids.tolist() == [8]
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]


def test_a_store_that_was_read_takes_no_more():
    store = filled(1)
    assert len(list(store)) == 1
    with pytest.raises(AssertionError, match="takes no more"):
        store.append(example([1], [[2]]))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_a_storage_error_that_names_folder_and_way_out(tmp_path, monkeypatch):
    full = Path("/dev/full").open("wb", buffering=64)  # noqa: SIM115 - the store keeps it
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full)
    store = TokenStore(tmp_path)
    with pytest.raises(StorageError, match="the disk is full") as raised:
        store.append(example([1] * 500, [[2], [3]]))
    assert raised.value.exit_code == 6
    assert str(tmp_path) in str(raised.value)
    assert "TMPDIR" in raised.value.fix


def test_a_folder_that_does_not_exist_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="missing"):
        TokenStore(tmp_path / "missing")


def test_memory_per_pair_stays_small():
    store = filled(20_000)
    assert index_bytes(store) / len(store) < 48


def test_a_label_takes_a_byte_and_a_score_eight():
    sizes = []
    for values in ({}, {"labels": (True, False)}, {"scores": (2.0, 1.0)}):
        store = TokenStore()
        for number in range(100):
            store.append(example([number], [[1], [2]], number + 1, **values))
        sizes.append(index_bytes(store))
    assert [size - sizes[0] for size in sizes] == [0, 100 * 2, 100 * 2 * 8]


def index_bytes(store: TokenStore) -> int:
    places = store._places
    indexes = (store._ends, store._first, places._file_numbers, places._row_numbers, store._labels, store._scores)
    return sum(index.buffer_info()[1] * index.itemsize for index in indexes)

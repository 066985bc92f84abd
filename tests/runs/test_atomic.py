"""A file is old or new; a failure says where, why and what to do."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest

from orpo.errors import StorageError
from orpo.runs.atomic import write_json_atomic, write_text_atomic
from orpo.runs.storage import ensure_free_space, readable_size


def failing(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left: more than .* needed, .* free"),
        (errno.EDQUOT, "the disk quota is used up: 3 bytes needed, .* free"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "input/output error"),
    ],
)
def test_a_failure_at_each_call_keeps_the_previous_file_and_removes_the_temporary_one(call, number, words, tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(number))
        with pytest.raises(StorageError, match=words) as caught:
            write_text_atomic(path, "new")
    assert caught.value.exit_code == 6
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.fix
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
    assert path.read_text() == "old"


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, bytes(content)[:3]))
    write_text_atomic(tmp_path / "x", "abcdefghij")
    assert (tmp_path / "x").read_text() == "abcdefghij"


def test_a_reader_never_sees_a_half_file(tmp_path):
    path, seen, done = tmp_path / "x.json", [], threading.Event()
    write_json_atomic(path, {"n": 0, "fill": "x" * 20_000})

    def read():
        while not done.is_set():
            seen.append(json.loads(path.read_text())["n"])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 60):
        write_json_atomic(path, {"n": number, "fill": "x" * 20_000})
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(seen) > 10


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    (tmp_path / "target").write_text("keep")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    write_text_atomic(tmp_path / "x", "new")
    assert (tmp_path / "target").read_text() == "keep"
    assert not (tmp_path / "x").is_symlink()


def test_a_missing_folder_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="no such file or directory"):
        write_text_atomic(tmp_path / "missing" / "x", "new")


def test_text_with_a_lone_surrogate_is_written_with_an_escape(tmp_path):
    write_text_atomic(tmp_path / "x", "a\ud800b")
    assert (tmp_path / "x").read_bytes() == b"a\\ud800b"


def test_floats_that_are_not_finite_become_words_in_json(tmp_path):
    write_json_atomic(tmp_path / "x", {"a": float("inf"), "b": (1, 2.5), "c": tmp_path.name})
    assert json.loads((tmp_path / "x").read_text()) == {"a": "inf", "b": [1, 2.5], "c": tmp_path.name}


def test_more_bytes_than_free_is_an_error_with_path_need_and_free(tmp_path):
    with pytest.raises(StorageError, match=rf"{tmp_path}.*: no space left: 1048576\.0 TiB \(1152921504606846976 bytes\) needed, .* free"):
        ensure_free_space(tmp_path / "not" / "there", 2**60)
    ensure_free_space(tmp_path / "not" / "there", 1)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB (1536 bytes)"), (2**31, "2.0 GiB (2147483648 bytes)")]
)
def test_sizes_in_words(size, text):
    assert readable_size(size) == text

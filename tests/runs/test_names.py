"""Names are safe, and a new run directory is one's own."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo.errors import StorageError, UserError
from orpo.runs.names import checkpoint_step, next_run_dir, path_inside, slug


def test_run_directories_are_numbered_from_one_above_the_highest(tmp_path):
    assert next_run_dir(tmp_path / "runs", "demo").name == "demo-1"
    (tmp_path / "runs" / "demo-7").mkdir()
    (tmp_path / "runs" / "demo-9").write_text("a file")
    (tmp_path / "runs" / "demo-x").mkdir()
    (tmp_path / "runs" / "other-50").mkdir()
    assert next_run_dir(tmp_path / "runs", "demo").name == "demo-10"


def test_a_dangling_link_with_the_next_name_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "demo-1").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr("orpo.runs.names._highest_number", lambda parent, prefix: 0)
    assert next_run_dir(tmp_path, "demo").name == "demo-2"
    assert not (tmp_path / "nowhere").exists()


def test_forty_threads_that_ask_at_once_get_forty_directories(tmp_path):
    start, got = threading.Barrier(40), []

    def ask():
        start.wait()
        got.append(next_run_dir(tmp_path, "race"))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 40
    assert all(path.is_dir() for path in got)


def test_a_parent_that_is_a_file_is_a_storage_error_with_its_path(tmp_path):
    (tmp_path / "runs").write_text("x")
    with pytest.raises(StorageError, match="runs: file exists"):
        next_run_dir(tmp_path / "runs", "demo")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-4B-Base", "qwen3-4b-base"),
        ("../../etc/passwd", "etc-passwd"),
        (".hidden", "hidden"),
        ("Ünïcode Näme", "unicode-name"),
        ("模型", "unnamed"),
        ("", "unnamed"),
        ("a..b", "a.b"),
        ("run\n\x1b[31m\u202e", "run-31m"),
    ],
)
def test_slugs_of_names(name, expected):
    got = slug(name)
    assert got.endswith(expected) if "/" in name else got == expected


@given(st.text())
def test_a_slug_is_a_plain_visible_file_name_and_its_own_slug(name):
    text = slug(name)
    assert 1 <= len(text) <= 60
    assert text.isascii()
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert text[0] not in ".-_"
    assert ".." not in text
    assert slug(text) == text


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "link/x", "out", "..", ".", "", "a\0b"])
def test_a_name_that_leaves_the_run_directory_is_refused(name, run_dir, tmp_path):
    (run_dir / "link").symlink_to(tmp_path)
    (run_dir / "out").symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(UserError, match="leads outside the run directory"):
        path_inside(run_dir, name)


def test_a_name_inside_is_given_back_below_a_run_directory_that_is_itself_a_link(run_dir, tmp_path):
    (tmp_path / "latest").symlink_to(run_dir)
    assert path_inside(tmp_path / "latest", "model/config.json") == tmp_path / "latest" / "model" / "config.json"
    (run_dir / "inner").symlink_to(run_dir / "model")
    assert path_inside(run_dir, "inner/config.json") == run_dir / "inner" / "config.json"


@pytest.mark.parametrize(
    "name", ["checkpoint-007", "checkpoint-keep-me", "checkpoint-", "checkpoint--1", "checkpoint-1.bak", "xcheckpoint-1", "checkpoint-١"]
)
def test_names_that_only_look_like_a_checkpoint_are_none(name):
    assert checkpoint_step(name) is None


def test_checkpoint_names_give_their_step():
    assert [checkpoint_step(f"checkpoint-{step}") for step in (0, 7, 123456)] == [0, 7, 123456]

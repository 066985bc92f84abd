"""Only what this run wrote, and is as it wrote it, is ever deleted or replaced."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from orpo.errors import CheckpointError
from orpo.runs.checkpoints import begin_staging, publish_checkpoint, publish_staging
from orpo.runs.names import MANIFEST
from orpo.runs.resume import newest_valid
from orpo.runs.rotation import clear_leftovers, rotate
from orpo.runs.run_id import ensure_run_id
from orpo.runs.verification import verify


def names(run_dir):
    return sorted(path.name for path in run_dir.iterdir() if not path.name.startswith("."))


def test_the_newest_are_kept_by_step_and_the_rest_deleted(run_dir, publish):
    for step in (9, 10, 100, 20):
        publish(run_dir, step)
    assert rotate(run_dir, 2) == ["checkpoint-10", "checkpoint-9"]
    assert names(run_dir) == ["checkpoint-100", "checkpoint-20"]
    assert rotate(run_dir, 2) == []


def test_what_is_not_ours_is_neither_deleted_nor_counted(run_dir, publish, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    publish(other, 2)
    for step in (1, 30, 40):
        publish(run_dir, step)
    shutil.copytree(other / "checkpoint-2", run_dir / "checkpoint-2")
    (run_dir / "checkpoint-keep-me").mkdir()
    (run_dir / "checkpoint-7").mkdir()
    (run_dir / "checkpoint-7" / "mine.txt").write_text("x")
    shutil.copytree(run_dir / "checkpoint-1", run_dir / "checkpoint-5")  # our manifest, but of another step
    shutil.copytree(run_dir / "checkpoint-1", tmp_path / "checkpoint-6")
    (run_dir / "checkpoint-6").symlink_to(tmp_path / "checkpoint-6")
    (run_dir / "checkpoint-8").write_text("a file")
    before = set(names(run_dir))
    assert rotate(run_dir, 1) == ["checkpoint-30", "checkpoint-1"]
    assert set(names(run_dir)) == before - {"checkpoint-30", "checkpoint-1"}
    assert verify(tmp_path / "checkpoint-6") == ["manifest.json is of step 1, the folder is called checkpoint-6"]


def test_a_checkpoint_to_which_someone_added_a_file_is_not_deleted(run_dir, publish):
    for step in (1, 2, 3):
        publish(run_dir, step)
    (run_dir / "checkpoint-1" / "notes.txt").write_text("why this one is good")
    assert rotate(run_dir, 1) == ["checkpoint-2"]
    assert (run_dir / "checkpoint-1" / "notes.txt").exists()


def test_a_damaged_newest_does_not_take_the_place_of_a_valid_one(run_dir, publish):
    for step in (1, 2):
        publish(run_dir, step)
    os.truncate(run_dir / "checkpoint-2" / "model.safetensors", 5)
    assert rotate(run_dir, 1) == []
    assert newest_valid(run_dir)[0] == run_dir / "checkpoint-1"


def test_a_run_without_an_id_deletes_nothing(run_dir):
    (run_dir / "checkpoint-1").mkdir()
    assert rotate(run_dir, 1) == []


def test_only_this_runs_leftovers_are_cleared(run_dir, publish):
    run_id = ensure_run_id(run_dir)
    ours = [f".staging-{run_id}-checkpoint-3", f".deleting-{run_id}-checkpoint-1", ".tmp-0123abcd-metrics.jsonl"]
    others = [".staging-000000000000-checkpoint-3", f".staging-{run_id}-notes", ".tmp-0123abcd-report.html", ".tmp-mine", ".staging-x"]
    for name in ours + others:
        (run_dir / name).mkdir()
    assert clear_leftovers(run_dir) == sorted(ours)
    assert all((run_dir / name).exists() for name in others)


def test_a_leftover_that_is_a_link_is_removed_and_its_target_kept(run_dir, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").write_text("keep")
    link = run_dir / f".staging-{ensure_run_id(run_dir)}-checkpoint-3"
    link.symlink_to(tmp_path / "target")
    clear_leftovers(run_dir)
    assert not link.is_symlink()
    assert (tmp_path / "target" / "file").read_text() == "keep"


def test_a_valid_checkpoint_of_the_same_point_is_kept_and_that_is_said(run_dir, publish):
    publish(run_dir, 10)
    inode = (run_dir / "checkpoint-10" / MANIFEST).stat().st_ino
    again = publish(run_dir, 10)
    assert again.notes == ("checkpoint-10 is there already and valid; it was kept",)
    assert (run_dir / "checkpoint-10" / MANIFEST).stat().st_ino == inode
    assert names(run_dir) == ["checkpoint-10"]


def test_a_valid_checkpoint_of_other_settings_is_never_overwritten(run_dir, publish, writer, facts):
    publish(run_dir, 10)
    before = (run_dir / "checkpoint-10" / MANIFEST).read_bytes()
    with pytest.raises(CheckpointError, match="valid, and from other settings"):
        publish_checkpoint(run_dir, 10, write_files=writer(10), facts=replace(facts(10), free={"learning_rate": 9}))
    assert (run_dir / "checkpoint-10" / MANIFEST).read_bytes() == before
    assert names(run_dir) == ["checkpoint-10"]


def test_what_is_in_the_way_and_not_valid_is_moved_aside_whole_and_that_is_said(run_dir, publish, tmp_path):
    for number, aside in enumerate(["damaged-checkpoint-10", "damaged-checkpoint-10-2", "damaged-checkpoint-10-3"]):
        if number == 0:
            (run_dir / "checkpoint-10").mkdir()
            (run_dir / "checkpoint-10" / "mine.txt").write_text("x")
        elif number == 1:
            os.truncate(run_dir / "checkpoint-10" / "optimizer.pt", 1)
        else:
            shutil.rmtree(run_dir / "checkpoint-10")
            (run_dir / "checkpoint-10").symlink_to(tmp_path)
        published = publish(run_dir, 10)
        assert published.notes == (f"checkpoint-10 was there and not valid; moved aside to {aside} (delete it when it is of no use)",)
        assert verify(published.path) == []
    assert (run_dir / "damaged-checkpoint-10" / "mine.txt").read_text() == "x"
    assert tmp_path.is_dir()


def test_a_link_among_the_written_files_is_refused_because_its_target_can_change(run_dir, facts, tmp_path):
    staging = begin_staging(run_dir, 1)
    (tmp_path / "weights").write_bytes(b"x")
    (staging / "model.safetensors").symlink_to(tmp_path / "weights")
    with pytest.raises(CheckpointError, match=r"'model\.safetensors' is not a plain file"):
        publish_staging(run_dir, staging, step=1, facts=facts(1))
    assert names(run_dir) == []

"""A publish that dies anywhere leaves the previous checkpoint or the new one, and the next publish works."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

from orpo.errors import StorageError
from orpo.runs.checkpoints import begin_staging, publish_checkpoint, publish_staging
from orpo.runs.names import DAMAGED_PREFIX, MANIFEST
from orpo.runs.resume import newest_valid
from orpo.runs.rotation import clear_leftovers, rotate
from orpo.runs.verification import verify

_spec = importlib.util.spec_from_file_location("orpo_test_crash", Path(__file__).with_name("crash.py"))
assert _spec is not None
assert _spec.loader is not None
crash = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = crash
_spec.loader.exec_module(crash)

NOTES = "my notes"


def nothing_before(run_dir, publish):
    pass


def two_before(run_dir, publish):
    publish(run_dir, 10)
    publish(run_dir, 20)


def a_damaged_one_in_the_way(run_dir, publish):
    publish(run_dir, 20)
    publish(run_dir, 30)
    os.truncate(run_dir / "checkpoint-30" / "model.safetensors", 100)


def leftovers_of_earlier_crashes(run_dir, publish):
    publish(run_dir, 20)
    (begin_staging(run_dir, 25) / "half").write_text("x")
    run_id = (run_dir / ".run-id").read_text().strip()
    shutil.copytree(run_dir / "checkpoint-20", run_dir / f".deleting-{run_id}-checkpoint-15")
    (run_dir / ".tmp-0a1b2c3d-summary.json").write_text("{")


SITUATIONS = [nothing_before, two_before, a_damaged_one_in_the_way, leftovers_of_earlier_crashes]
WAYS = ["exception", "kill", "power"]


def prepare(directory, situation, publish):
    directory.mkdir()
    situation(directory, publish)
    (directory / "checkpoint-keep-me").mkdir()
    (directory / "checkpoint-keep-me" / "notes.txt").write_text(NOTES)
    return directory


def save(run_dir, publish):
    """What a trainer does at one save."""
    publish(run_dir, 30)
    rotate(run_dir, 1)


def die(way, number, action, run_dir):
    if way == "exception":
        crash.die_at(number, action)
    elif way == "kill":
        crash.kill_at(number, action)
    else:
        crash.lose_power_at(number, action, run_dir)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__.replace("_", "-"))
def test_a_crash_at_each_change_of_the_disk_leaves_the_previous_or_the_new_checkpoint(situation, way, tmp_path, publish, quick_disk):
    rehearsal = prepare(tmp_path / "rehearsal", situation, publish)
    changes = crash.count(lambda: save(rehearsal, publish))
    assert len(changes) >= 25
    for number in range(1, len(changes) + 1):
        run_dir = prepare(tmp_path / f"run-{number}", situation, publish)
        before, _ = newest_valid(run_dir)
        die(way, number, lambda run_dir=run_dir: save(run_dir, publish), run_dir)

        after, _ = newest_valid(run_dir)
        assert after in (before, run_dir / "checkpoint-30"), f"change {number} ({changes[number - 1]})"
        # `.tmp-` of .run-id and others: cleared at the start of the next process
        clear_leftovers(run_dir)
        save(run_dir, publish)
        assert newest_valid(run_dir) == (run_dir / "checkpoint-30", [])
        assert (run_dir / "checkpoint-keep-me" / "notes.txt").read_text() == NOTES
        rest = {path.name for path in run_dir.iterdir() if not path.name.startswith(DAMAGED_PREFIX)}
        assert rest == {"checkpoint-30", "checkpoint-keep-me", ".run-id"}, f"change {number} ({changes[number - 1]})"
        shutil.rmtree(run_dir)


def test_files_are_synced_before_the_manifest_and_the_manifest_before_the_rename(run_dir, publish):
    publish(run_dir, 10)
    names = crash.count(lambda: publish(run_dir, 20))
    # 6 files and a manifest: each opened and written; one mkdir for the staging, one for the tokenizer.
    assert names == (
        ["mkdir"]
        + ["open", "write"] * 5
        + ["mkdir"]
        + ["open", "write"]
        + ["fsync"] * 6  # every file
        + ["open", "write", "fsync", "replace", "fsync"]  # manifest.json and its directory
        + ["fsync"] * 2  # tokenizer/ and the staging directory
        + ["rename", "fsync"]  # checkpoint-20 and the run directory
    )


def test_a_checkpoint_under_deletion_loses_its_name_before_its_first_file(run_dir, publish):
    publish(run_dir, 10)
    publish(run_dir, 20)
    names = crash.count(lambda: rotate(run_dir, 1))
    assert names[:2] == ["rename", "fsync"]
    assert names.count("unlink") + names.count("remove") == 7


class DiskFull:
    """From the k-th write on, the disk is full, until it is freed."""

    def __init__(self, monkeypatch, number):
        self.left, self.full = number, True
        real = os.write

        def write(descriptor, content):
            self.left -= 1
            if self.full and self.left <= 0:
                if self.left == 0 and len(content) > 1:
                    return real(descriptor, bytes(content)[: len(content) // 2])  # the disk takes what it still can
                raise OSError(28, "No space left on device")
            return real(descriptor, content)

        monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("number", range(1, 8))
def test_a_full_disk_at_each_file_leaves_the_previous_checkpoint_and_exits_with_6(number, run_dir, publish, monkeypatch):
    publish(run_dir, 10)
    disk = DiskFull(monkeypatch, number)
    with pytest.raises(StorageError) as caught:
        publish(run_dir, 20)
    assert caught.value.exit_code == 6
    message = str(caught.value)
    assert str(run_dir) in message
    assert "no space left: " in message
    assert " needed, " in message
    assert " free" in message
    assert sorted(path.name for path in run_dir.iterdir()) == [".run-id", "checkpoint-10"], (
        "the rest of the failed save still fills the disk"
    )
    assert newest_valid(run_dir) == (run_dir / "checkpoint-10", [])
    disk.full = False
    assert publish(run_dir, 20).path.name == "checkpoint-20"
    assert verify(run_dir / "checkpoint-20") == []


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",  # safetensors 0.7
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",  # torch 2.13
    ],
)
def test_a_full_disk_wrapped_by_a_serialiser_is_still_a_storage_error(text, run_dir, facts):
    def write_files(directory):
        raise RuntimeError(text)

    with pytest.raises(StorageError, match="no space left"):
        publish_checkpoint(run_dir, 1, write_files=write_files, facts=facts(1))
    assert [path.name for path in run_dir.iterdir()] == [".run-id"]


def test_a_failed_save_gives_its_space_back_although_the_serialiser_still_holds_the_file_open(run_dir, facts):
    held = []

    def write_files(directory):
        held.append((directory / "optimizer.pt").open("wb", buffering=0))
        held[0].write(bytes(2**20))
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    with pytest.raises(StorageError):
        publish_checkpoint(run_dir, 1, write_files=write_files, facts=facts(1))
    assert os.fstat(held[0].fileno()).st_blocks == 0
    held[0].close()


def test_a_failed_save_leaves_a_file_alone_that_was_hard_linked_or_linked_into_it(run_dir, facts, tmp_path):
    def write_files(directory):
        for name in ("hard", "soft"):
            (tmp_path / name).write_text("keep")
        os.link(tmp_path / "hard", directory / "hard")
        (directory / "soft").symlink_to(tmp_path / "soft")
        raise RuntimeError("disk quota exceeded")

    with pytest.raises(StorageError):
        publish_checkpoint(run_dir, 1, write_files=write_files, facts=facts(1))
    assert [(tmp_path / name).read_text() for name in ("hard", "soft")] == ["keep", "keep"]
    assert [path.name for path in run_dir.iterdir()] == [".run-id"]


def test_an_error_of_the_caller_passes_unchanged_and_leaves_nothing_behind(run_dir, facts):
    def write_files(directory):
        (directory / "half").write_text("x")
        raise ValueError("not about the disk")

    with pytest.raises(ValueError, match="not about the disk"):
        publish_checkpoint(run_dir, 1, write_files=write_files, facts=facts(1))
    assert [path.name for path in run_dir.iterdir()] == [".run-id"]


def test_too_little_free_space_is_said_before_anything_is_written(run_dir, publish, facts, monkeypatch):
    publish(run_dir, 10)
    written = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 4096, 4096))
    with pytest.raises(StorageError, match=r"15\.0 KiB \(\d+ bytes\) needed, 4\.0 KiB \(4096 bytes\) free"):
        publish_checkpoint(run_dir, 20, write_files=lambda directory: written.append(directory), facts=facts(20))
    with pytest.raises(StorageError, match=r"1\.0 GiB \(1073741824 bytes\) needed"):
        publish_checkpoint(run_dir, 20, write_files=lambda directory: written.append(directory), facts=facts(20), need_bytes=2**30)
    assert written == []


def test_no_permission_to_write_is_a_storage_error_with_the_path(run_dir, publish, monkeypatch):
    publish(run_dir, 10)
    monkeypatch.setattr(os, "mkdir", lambda *args, **kwargs: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(StorageError, match=r"checkpoint-20: permission denied"):
        publish(run_dir, 20)
    assert newest_valid(run_dir) == (run_dir / "checkpoint-10", [])


def test_several_ranks_write_between_begin_and_publish(run_dir, facts):
    staging = begin_staging(run_dir, 5)
    for rank in (0, 1):
        (staging / f"rng_state_{rank}.pth").write_bytes(bytes([rank]) * 50)
    published = publish_staging(run_dir, staging, step=5, facts=facts(5))
    assert verify(published.path) == []
    assert sorted(path.name for path in published.path.iterdir()) == [MANIFEST, "rng_state_0.pth", "rng_state_1.pth"]

"""Every kind of damage is found, told in a readable line, and the older valid checkpoint is taken."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo.errors import CheckpointError
from orpo.runs.manifest import read_manifest
from orpo.runs.names import MANIFEST
from orpo.runs.resume import find_valid_checkpoints, newest_valid, resume_point
from orpo.runs.verification import verify

_spec = importlib.util.spec_from_file_location("orpo_test_damage", Path(__file__).with_name("damage.py"))
assert _spec is not None
assert _spec.loader is not None
damage = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = damage
_spec.loader.exec_module(damage)

REQUIRED = ("*.safetensors", "optimizer*", "scheduler*", "rng_state*", "trainer_state.json")


@pytest.fixture
def two(run_dir, publish, quick_disk):
    return publish(run_dir, 20).path, publish(run_dir, 10).path


def test_the_table_covers_many_kinds_each_named_once():
    names = [kind.name for kind in damage.DAMAGES]
    assert len(names) == len(set(names)) >= 40


def test_an_undamaged_checkpoint_has_no_fault_and_is_taken(run_dir, two):
    assert verify(two[0], required=REQUIRED) == []
    assert newest_valid(run_dir, required=REQUIRED) == (two[0], [])


@pytest.mark.parametrize("kind", damage.DAMAGES, ids=lambda kind: kind.name.replace(" ", "-"))
def test_a_damaged_checkpoint_is_skipped_with_a_reason_and_the_older_one_is_taken(kind, run_dir, two):
    newest, older = two
    kind.apply(newest, older)
    path, skipped = newest_valid(run_dir, required=REQUIRED)
    assert path == older
    assert [entry.path for entry in skipped] == [newest]
    assert any(re.search(kind.reason, reason) for reason in skipped[0].reasons), skipped[0].reasons
    assert re.fullmatch(r"skipped checkpoint-20: [^\n]{5,200}", skipped[0].line)
    assert find_valid_checkpoints(run_dir, required=REQUIRED) == [older]


def test_weights_exchanged_between_two_checkpoints_spoil_both_and_a_third_is_taken(run_dir, publish):
    first, second, third = (publish(run_dir, step).path for step in (1, 2, 3))
    keep = (second / "model.safetensors").read_bytes()
    (second / "model.safetensors").write_bytes((third / "model.safetensors").read_bytes())
    (third / "model.safetensors").write_bytes(keep)
    path, skipped = newest_valid(run_dir)
    assert path == first
    assert [entry.path for entry in skipped] == [third, second]


def test_checkpoints_that_are_all_damaged_are_an_error_that_lists_each_and_never_a_fresh_start(run_dir, two):
    for path in two:
        damage.flip_bit(path / "optimizer.pt")
    with pytest.raises(CheckpointError) as caught:
        resume_point(run_dir)
    assert caught.value.exit_code == 8
    message = str(caught.value)
    assert "none of the 2 checkpoints here is valid" in message
    assert "skipped checkpoint-20: optimizer.pt was changed" in message
    assert "skipped checkpoint-10: optimizer.pt was changed" in message
    assert "--fresh" in message


def test_a_directory_without_checkpoints_has_no_resume_point(run_dir):
    (run_dir / "checkpoint-keep-me").mkdir()
    (run_dir / "checkpoint-007").mkdir()
    assert resume_point(run_dir) is None


def test_what_desktops_and_network_file_systems_leave_behind_is_no_fault(two):
    for name in (".DS_Store", "._model.safetensors", ".nfs0000001", "tokenizer/Thumbs.db"):
        (two[0] / name).write_bytes(b"x")
    (two[0] / "empty").mkdir()
    assert verify(two[0]) == []


def test_an_unreadable_file_is_a_fault(two, unprivileged):
    (two[0] / "optimizer.pt").chmod(0)
    assert verify(two[0]) == ["optimizer.pt cannot be read (Permission denied)"]


def test_a_read_error_of_the_disk_is_a_fault(two, monkeypatch):
    real = os.read
    bad = (two[0] / "optimizer.pt").stat().st_ino

    def read(descriptor, count):
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(5, "Input/output error")
        return real(descriptor, count)

    monkeypatch.setattr(os, "read", read)
    assert verify(two[0]) == ["optimizer.pt cannot be read (Input/output error)"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_manifest_with_any_byte_changed_is_refused_or_says_the_same(data, two):
    path = two[0] / MANIFEST
    content = path.read_bytes()
    before = read_manifest(two[0])
    place = data.draw(st.integers(0, len(content) - 1))
    changed = content[:place] + bytes([data.draw(st.integers(0, 255))]) + content[place + 1 :]
    try:
        path.write_bytes(changed)
        assert verify(two[0]) or read_manifest(two[0]) == before
    finally:
        path.write_bytes(content)


def test_every_single_bit_of_a_file_matters(two):
    path = two[0] / "scheduler.pt"
    content = path.read_bytes()
    for place in range(0, len(content) * 8, 37):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        assert verify(two[0]) == ["scheduler.pt was changed after it was written (its sha256 does not fit)"]
    path.write_bytes(content)
    assert verify(two[0]) == []


def test_large_sets_of_files_are_verified_on_threads_with_the_same_result(two, monkeypatch):
    monkeypatch.setattr("orpo.runs.verification._PARALLEL_FROM_BYTES", 1)
    assert verify(two[0]) == []
    damage.flip_bit(two[0] / "rng_state.pth")
    damage.flip_bit(two[0] / "optimizer.pt")
    assert [fault.split()[0] for fault in verify(two[0])] == ["optimizer.pt", "rng_state.pth"]

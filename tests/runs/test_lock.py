"""One writer per run directory, and no lock outlives its process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import pytest

from orpo.errors import RunLockedError, StorageError
from orpo.runs.lock import RunLock

HOLDER = """
import sys, time
from pathlib import Path
from orpo.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(run_dir):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def fork(action):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 99
        try:
            code = action()
        finally:
            os._exit(code)
    return child


def test_a_second_process_is_refused_and_told_pid_host_and_since_when(run_dir, holder):
    with pytest.raises(RunLockedError) as caught:
        RunLock(run_dir).acquire()
    assert caught.value.exit_code == 9
    host = re.escape(os.uname().nodename)
    assert re.search(rf"in use by process {holder.pid} on {host}, since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", str(caught.value))
    assert str(caught.value).startswith(f"{run_dir}: ")


def test_a_lock_that_was_released_can_be_taken_while_its_process_lives(run_dir, holder):
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"
    with RunLock(run_dir) as lock:
        assert lock.held
    assert holder.poll() is None


def test_a_killed_process_leaves_no_lock(run_dir, holder):
    holder.kill()
    holder.wait()
    with RunLock(run_dir) as lock:
        assert lock.held
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()


def test_the_same_process_cannot_take_it_twice(run_dir):
    with RunLock(run_dir), pytest.raises(RunLockedError, match=f"process {os.getpid()} "):
        RunLock(run_dir).acquire()


def test_the_file_names_nobody_after_the_release(run_dir):
    with RunLock(run_dir) as lock:
        assert not os.get_inheritable(lock._descriptor)
    assert lock.path.read_bytes() == b""
    lock.release()  # once more does nothing


def test_a_forked_child_holds_nothing_and_releases_nothing(run_dir):
    with RunLock(run_dir) as lock:
        child = fork(lambda: (lock.release(), 0 if not lock.held else 1)[1])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} "):
            RunLock(run_dir).acquire()


def test_a_worker_that_outlives_its_killed_parent_does_not_keep_the_lock(run_dir, tmp_path):
    ready = tmp_path / "worker"

    def parent():
        RunLock(run_dir).acquire()  # the object is dropped: the lock must not depend on a caller's variable
        lock = RunLock(run_dir)
        try:
            lock.acquire()
        except RunLockedError:
            pass
        else:
            return 5
        worker = fork(lambda: (time.sleep(60), 0)[1])
        ready.with_suffix(".tmp").write_text(str(worker))
        ready.with_suffix(".tmp").rename(ready)
        time.sleep(60)
        return 0

    child = fork(parent)
    try:
        deadline = time.monotonic() + 20
        while not ready.exists():
            assert time.monotonic() < deadline
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.01)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    worker = int(ready.read_text())
    try:
        os.kill(worker, 0)  # it lives
        with RunLock(run_dir) as lock:
            assert lock.held
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_is_said_and_not_ignored(run_dir, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(StorageError, match="this file system has no file locks"):
        RunLock(run_dir).acquire()


def test_a_missing_directory_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"\.lock: no such file or directory"):
        RunLock(tmp_path / "missing").acquire()


def test_a_link_in_place_of_the_lock_is_not_followed(run_dir, tmp_path):
    (tmp_path / "victim").write_text("keep")
    (run_dir / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        RunLock(run_dir).acquire()
    assert (tmp_path / "victim").read_text() == "keep"

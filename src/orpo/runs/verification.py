"""Is a checkpoint whole? A directory enters; what is wrong with it leaves, as sentences, nothing when all is well."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from orpo.runs.manifest import FileEntry, Manifest, ManifestFault, read_manifest
from orpo.runs.names import MANIFEST, checkpoint_step

T = TypeVar("T")

# What desktops and NFS leave behind; no loader reads these, so they are no fault. Every other extra file is: loaders pick
# files by name, and an `adapter_model.safetensors` or a pickle that sneaked in would be loaded.
IGNORABLE = (".DS_Store", "Thumbs.db", "desktop.ini", ".nfs*", "._*", ".directory")

_CHUNK_BYTES = 2**20
# Hashing leaves the interpreter lock, so two files are hashed in the time of one; below this size a thread costs more than it gives.
_PARALLEL_FROM_BYTES = 64 * 2**20


def verify(directory: Path, *, run_id: str | None = None, required: Sequence[str] = ()) -> list[str]:
    """What is wrong with the checkpoint, [] when nothing: the files there are those of the manifest, with their size and sha256.

    `run_id` is the run it must belong to (None: any). `required` are patterns of which each must match a file in the
    manifest (`optimizer*`), which finds a checkpoint that was complete but saved without something.
    """
    manifest, faults = structural_faults(directory, run_id=run_id)
    if manifest is None:
        return faults
    missing = [pattern for pattern in required if not any(fnmatchcase(entry.path, pattern) for entry in manifest.files)]
    faults += [f"{pattern} is required to resume and no file in the manifest is called so" for pattern in missing]
    # Files already at fault (missing, wrong size) are not hashed: one sentence per file is enough.
    sound = [entry for entry in manifest.files if not any(fault.startswith(f"{entry.path} ") for fault in faults)]
    return faults + [fault for fault in map_files(sound, lambda entry: _content_fault(directory, entry)) if fault]


def structural_faults(directory: Path, *, run_id: str | None = None) -> tuple[Manifest | None, list[str]]:
    """The manifest (None when unusable) and what is wrong without reading the files: names, kinds and sizes. Quick on any size."""
    try:
        if directory.is_symlink() or not directory.is_dir():
            return None, ["is a symbolic link" if directory.is_symlink() else "is not a directory"]
        manifest = read_manifest(directory)
    except ManifestFault as fault:
        return None, [str(fault)]
    try:
        found = dict(entries(directory))
    except OSError as error:
        return manifest, [f"cannot be listed ({error.strerror}: {error.filename})"]
    return manifest, _ownership_faults(directory, manifest, run_id) + _file_faults(manifest, found)


def entries(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and lstat of everything below `directory`, directories before what they hold. Links are not followed."""
    for path in sorted(directory.iterdir()):
        info = path.lstat()
        yield path.name, info
        if stat.S_ISDIR(info.st_mode):
            yield from ((f"{path.name}/{below}", details) for below, details in entries(path))


def is_ignorable(path: str) -> bool:
    """True for the droppings of desktops and network file systems."""
    return any(fnmatchcase(path.rpartition("/")[2], pattern) for pattern in IGNORABLE)


def file_sha256(path: Path, *, sync: bool = False) -> tuple[int, str]:
    """Bytes and sha256 of a file, which is not a link; with `sync` its content is on the disk before this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        digest, size = hashlib.sha256(), 0
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
        if sync:
            os.fsync(descriptor)
        return size, digest.hexdigest()
    finally:
        os.close(descriptor)


def map_files(files: Sequence[FileEntry], work: Callable[[FileEntry], T]) -> Iterable[T]:
    """`work` of each file, in order; large sets on several threads."""
    if len(files) < 2 or sum(entry.size for entry in files) < _PARALLEL_FROM_BYTES:
        return [work(entry) for entry in files]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, files))


def _ownership_faults(directory: Path, manifest: Manifest, run_id: str | None) -> list[str]:
    faults = []
    step = checkpoint_step(directory.name)
    if step is not None and step != manifest.step:
        faults.append(f"{MANIFEST} is of step {manifest.step}, the folder is called {directory.name}")
    if run_id is not None and manifest.run_id != run_id:
        faults.append(f"{MANIFEST} belongs to run {manifest.run_id}, this is run {run_id}")
    return faults


def _file_faults(manifest: Manifest, found: dict[str, os.stat_result]) -> list[str]:
    expected = {entry.path: entry for entry in manifest.files}
    faults = [fault for entry in manifest.files if (fault := _kind_fault(entry, found))]
    extra = [
        path
        for path, info in found.items()  # an empty directory holds nothing a loader could take
        if path not in expected and path != MANIFEST and not is_ignorable(path) and not stat.S_ISDIR(info.st_mode)
    ]
    # Below a path that should be a file there is nothing more to tell.
    extra = [path for path in extra if not any(path.startswith(f"{name}/") for name in expected)]
    return faults + [f"{path} is not in the manifest (it was added later)" for path in extra]


def _kind_fault(entry: FileEntry, found: dict[str, os.stat_result]) -> str | None:
    info = found.get(entry.path)
    if info is None:
        return f"{entry.path} is missing"
    if stat.S_ISDIR(info.st_mode):
        return f"{entry.path} is a directory, a file is expected"
    if stat.S_ISLNK(info.st_mode):
        return f"{entry.path} is a symbolic link, a file is expected"
    if not stat.S_ISREG(info.st_mode):
        return f"{entry.path} is a device, pipe or socket, a file is expected"
    if info.st_size == entry.size:
        return None
    return f"{entry.path} {'is empty' if info.st_size == 0 else f'has {info.st_size} bytes'}, {entry.size} bytes are expected"


def _content_fault(directory: Path, entry: FileEntry) -> str | None:
    try:
        size, digest = file_sha256(directory / entry.path)
    except OSError as error:
        return f"{entry.path} cannot be read ({error.strerror})"
    if (size, digest) == (entry.size, entry.sha256):
        return None
    return f"{entry.path} was changed after it was written (its sha256 does not fit)"

"""What a checkpoint says about itself: facts enter, manifest.json leaves, and comes back only if every byte of it still agrees."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orpo.runs.jsontext import canonical, plain, read_strictly, to_text
from orpo.runs.names import MANIFEST, checkpoint_paths, is_run_id
from orpo.runs.redact import redact

FORMAT_VERSION = 1
# Far above any real manifest (about 150 bytes per file); keeps a mistaken giant file from filling the memory.
_LARGEST_BYTES = 64 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ManifestFault(Exception):
    """Why a manifest cannot be used, as one readable sentence."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a checkpoint: path below it with `/`, bytes, sha256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The model that was tuned: hub id or path, commit (None for a folder), sha256 over its weights."""

    id: str
    revision: str | None
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What the trainer knows at the step it saves.

    `identity` are the config fields that must match on resume, `free` those that may change; `data` is the fingerprint
    of the data (file hashes in order, rows, tokenizer and template hash, packing and loss options).
    """

    epoch: float
    samples_seen: int
    world_size: int
    identity: Mapping[str, Any]
    base_model: BaseModel
    free: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)

    def clean(self) -> CheckpointFacts:
        """The same facts as they will stand in manifest.json: plain JSON, secrets redacted."""
        parts = {name: redact(plain(getattr(self, name))) for name in ("identity", "free", "data", "libraries")}
        model = self.base_model
        base_model = BaseModel(redact(model.id), redact(model.revision), model.weights_sha256)
        return CheckpointFacts(float(self.epoch), self.samples_seen, self.world_size, base_model=base_model, **parts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json: whose checkpoint it is, of which step, what the trainer knew, and every file sorted by path."""

    run_id: str
    step: int
    facts: CheckpointFacts
    files: tuple[FileEntry, ...]
    format_version: int = FORMAT_VERSION

    @property
    def num_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> dict[str, Any]:
        """The object written to manifest.json. `checksum` covers all other keys: a flipped byte in a config field is noticed too."""
        body = {
            "format_version": self.format_version,
            "run_id": self.run_id,
            "step": self.step,
            "epoch": self.facts.epoch,
            "samples_seen": self.facts.samples_seen,
            "world_size": self.facts.world_size,
            "identity": self.facts.identity,
            "free": self.facts.free,
            "data": self.facts.data,
            "base_model": {name: getattr(self.facts.base_model, name) for name in BaseModel.__slots__},
            "libraries": self.facts.libraries,
            "files": [{name: getattr(entry, name) for name in FileEntry.__slots__} for entry in self.files],
        }
        return {**body, "checksum": checksum(body)}

    def to_bytes(self) -> bytes:
        """The text of manifest.json."""
        return (to_text(self.to_json(), indent=1) + "\n").encode("ascii")


def checksum(body: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of every key but `checksum`."""
    return hashlib.sha256(canonical({key: value for key, value in body.items() if key != "checksum"})).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint directory; ManifestFault when it is missing or not exactly what was written. Looks at no other file."""
    value = _parsed(_content(directory / MANIFEST))
    if not isinstance(value, dict):
        raise ManifestFault(f"{MANIFEST} holds a JSON {_json_kind(value)}, not an object")
    version = value.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise ManifestFault(f"{MANIFEST} has format version {version!r}, this version of orpo reads {FORMAT_VERSION}")
    try:
        fits = value.get("checksum") == checksum(value)
    except RecursionError:
        raise ManifestFault(f"{MANIFEST} is nested too deeply") from None
    if not fits:
        raise ManifestFault(f"{MANIFEST} was changed after it was written (its checksum does not fit)")
    try:
        return _from_json(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestFault(f"{MANIFEST} is incomplete or has a value of the wrong kind ({type(error).__name__}: {error})") from None


def newest_readable_manifest(run_dir: Path) -> Manifest | None:
    """The manifest of the highest step that can be read, None when there is none. Whether its files are whole is not looked at."""
    for _, path in checkpoint_paths(run_dir):
        try:
            return read_manifest(path)
        except ManifestFault:
            continue
    return None


def unsafe_path_reason(path: str) -> str | None:
    """Why `path` may not stand in a manifest, None when it is a plain relative path below the checkpoint."""
    if not path or path.startswith("/") or "\\" in path or "\0" in path or ":" in path:
        return "is not a relative path with `/`"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "leads outside the checkpoint or is not in plain form"
    if path == MANIFEST:
        return "names the manifest itself"
    return None


def _content(path: Path) -> bytes:
    try:
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            raise ManifestFault(f"{MANIFEST} is a symbolic link")
        if not stat.S_ISREG(info.st_mode):
            raise ManifestFault(f"{MANIFEST} is not a file")
        if info.st_size == 0:
            raise ManifestFault(f"{MANIFEST} is empty")
        if info.st_size > _LARGEST_BYTES:
            raise ManifestFault(f"{MANIFEST} has {info.st_size} bytes, which no manifest has")
        return path.read_bytes()
    except FileNotFoundError:
        raise ManifestFault(f"has no {MANIFEST}, so it was not published by orpo") from None
    except OSError as error:
        raise ManifestFault(f"{MANIFEST} cannot be read ({error.strerror})") from None


def _parsed(content: bytes) -> Any:
    try:
        return read_strictly(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ManifestFault(f"{MANIFEST} is not text (byte {error.start} is not UTF-8)") from None
    except ValueError as error:
        raise ManifestFault(f"{MANIFEST} {error}") from None


def _json_kind(value: Any) -> str:
    kinds = {list: "list", str: "string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "number")


def _from_json(value: dict[str, Any]) -> Manifest:
    facts = CheckpointFacts(
        epoch=float(value["epoch"]),
        samples_seen=_count(value, "samples_seen"),
        world_size=_count(value, "world_size"),
        identity=_object(value, "identity"),
        free=_object(value, "free"),
        data=_object(value, "data"),
        base_model=BaseModel(**value["base_model"]),
        libraries=_object(value, "libraries"),
    )
    run_id = value["run_id"]
    if not isinstance(run_id, str) or not is_run_id(run_id):
        raise ValueError(f"run_id {run_id!r}")
    files = tuple(_entry(item) for item in value["files"])
    paths = [entry.path for entry in files]
    if paths != sorted(set(paths)):
        raise ValueError("files are not sorted, or one is listed twice")
    return Manifest(run_id=run_id, step=_count(value, "step"), facts=facts, files=files)


def _entry(item: Any) -> FileEntry:
    entry = FileEntry(**item)
    if not isinstance(entry.path, str):
        raise TypeError(f"path {entry.path!r}")
    if reason := unsafe_path_reason(entry.path):
        raise ManifestFault(f"{MANIFEST} lists {entry.path!r}, which {reason}")
    if not isinstance(entry.sha256, str) or not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"sha256 {entry.sha256!r} of {entry.path}")
    _count(item, "size")
    return entry


def _count(value: Mapping[str, Any], name: str) -> int:
    number = value[name]
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{name} {number!r}")
    return number


def _object(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value[name]
    if not isinstance(found, dict):
        raise TypeError(f"{name} {found!r}")
    return found

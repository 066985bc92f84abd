"""The type of a data file: read from its name, held against its first bytes. Takes a path, gives a type or the problem in the way."""

from __future__ import annotations

import json
from json import detect_encoding
from pathlib import Path
from typing import Literal, NamedTuple

from orpo.core.records import Source
from orpo.data.byte_streams import BOM, ByteFile, Compression, DamagedStream
from orpo.data.row import Problem

Kind = Literal["json", "csv", "tsv", "parquet", "arrow"]
KINDS: dict[str, Kind] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
ACCEPTED = (
    "a .jsonl, .json, .csv or .tsv file (also with .gz or .zst), a .parquet, .arrow or .feather file, a folder of those, "
    "a save_to_disk folder, or a Hub id (org/name, org/name@revision, org/name:split)"
)
_HEAD = 4096
_COMPRESSED = {
    b"\x1f\x8b": "gzip (.gz)",
    b"\x28\xb5\x2f\xfd": "zstd (.zst)",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
}
_TABLES = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow", b"FEA1": "feather, version 1"}
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_POINTER = b"version https://git-lfs"


class FileType(NamedTuple):
    """What a file's name says about it."""

    kind: Kind
    compression: Compression = ""


def named_type(path: Path) -> FileType | None:
    """The type that the name of `path` claims, None for a name that is not accepted."""
    name = path.name.lower()
    ending = Path(name).suffix
    compression = COMPRESSIONS.get(ending, "")
    kind = KINDS.get(Path(name.removesuffix(ending)).suffix if compression else ending)
    if kind is None or (compression and kind in ("parquet", "arrow")):  # those are compressed inside and cannot be streamed
        return None
    return FileType(kind, compression)


def content_problem(file: ByteFile, kind: Kind) -> Problem | None:
    """Why the first bytes of `file` cannot be of the type its name claims; None when nothing speaks against it."""
    with file.path.open("rb") as raw:
        stored = raw.read(_HEAD)
    if not stored:
        return _problem(file, "empty-file", "the file is empty", "check how the file was written")
    found = _storage(stored)
    if kind in ("parquet", "arrow"):
        fits = found == kind
        return (
            None if fits else _problem(file, "wrong-file-type", f"named as {kind}, but its content {_looks(found, stored)}", _rename(found))
        )
    claimed = {"": "", "gzip": "gzip (.gz)", "zstd": "zstd (.zst)"}[file.compression]
    if found != claimed:
        named = f"named as {claimed or kind}"
        return _problem(file, "wrong-file-type", f"{named}, but its content {_looks(found, stored)}", _rename(found or "not compressed"))
    return _text_problem(file, kind)


def _storage(head: bytes) -> str:
    """What the magic bytes say, '' for none."""
    return next((what for magic, what in {**_COMPRESSED, **_TABLES}.items() if head.startswith(magic)), "")


def _looks(found: str, head: bytes) -> str:
    if found:
        return f"is {found}"
    return "is a pointer of git-lfs, not the file itself" if head.startswith(_POINTER) else "is something else"


def _rename(found: str) -> str:
    ending = {
        "gzip (.gz)": "add .gz to its name",
        "zstd (.zst)": "add .zst to its name",
        "parquet": "name it .parquet",
        "arrow": "name it .arrow",
    }
    return ending.get(found, "give the file the ending of what it holds; accepted: " + ACCEPTED)


def _text_problem(file: ByteFile, kind: Kind) -> Problem | None:
    try:
        with file.open() as stream:
            head = stream.read1(_HEAD)
    except DamagedStream:
        return None  # told by the reader, with the line
    if not head:
        return _problem(file, "empty-file", "the file is empty once decompressed", "check how the file was written")
    if not head.strip(b"\x00"):
        return _problem(
            file, "zero-bytes", "the file is filled with zero bytes, as after a crash or a download that was cut", "get the file again"
        )
    encoding = detect_encoding(head)
    if not encoding.startswith("utf-8"):
        standard = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        return _problem(file, "utf-16", f"looks like {standard}, expected UTF-8", f"iconv -f {standard} -t UTF-8 FILE > NEW")
    return _wrong_text(file, kind, head.removeprefix(BOM).lstrip())


def _wrong_text(file: ByteFile, kind: Kind, head: bytes) -> Problem | None:
    if head.startswith(_POINTER):
        return _problem(file, "wrong-file-type", "a pointer of git-lfs, not the file itself", "git lfs pull")
    if head.lower().startswith(_PAGES):
        return _problem(file, "wrong-file-type", "looks like a web page, not data", "download the file itself, not the page about it")
    if b"\r" in head and b"\n" not in head and not head.startswith(b"[") and head.count(b"\r") > head.count(b"\r\n"):
        return _problem(file, "line-ends", "lines end with a carriage return alone", "tr '\\r' '\\n' < FILE > NEW")
    if kind == "json" and _looks_like_csv(head):
        return _problem(file, "wrong-file-type", "named as JSON, but its first line looks like a csv header", "name it .csv (or .tsv)")
    if kind != "json" and head.startswith((b'{"', b'[{"', b"[\n", b"{\n")):
        return _problem(file, "wrong-file-type", f"named as {kind}, but its content looks like JSON", "name it .jsonl (or .json)")
    return None


def _looks_like_csv(head: bytes) -> bool:
    line = head.split(b"\n", 1)[0]
    if line.startswith((b"{", b"[")) or b"{" in line or not any(mark in line for mark in (b",", b"\t", b";")):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _problem(file: ByteFile, kind: str, message: str, fix: str) -> Problem:
    return Problem(kind, message, Source(file.name, 1), fix=fix)

"""Files that are old or new and never half: text or a JSON value enters, one durable file leaves, secrets redacted."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from orpo.runs.jsontext import plain, to_text
from orpo.runs.names import TEMPORARY_PREFIX
from orpo.runs.redact import redact, redact_text
from orpo.runs.storage import fsync_directory, storage_errors


def write_text_atomic(path: Path, text: str) -> None:
    """Nothing; `path` holds `text` without secrets (UTF-8). On failure StorageError, and the previous file is as it was."""
    # A lone surrogate has no UTF-8 form; a model can emit one, and losing a report to it would be worse than an escape.
    write_bytes_atomic(path, redact_text(text).encode("utf-8", errors="backslashreplace"))


def write_json_atomic(path: Path, value: Any) -> None:
    """Nothing; `path` holds `value` without secrets as indented JSON. On failure StorageError, and the previous file is as it was."""
    write_bytes_atomic(path, (to_text(redact(plain(value)), indent=2) + "\n").encode("ascii"))


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Nothing; `path` holds `content` as it is: temporary file beside it, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    with storage_errors(path, f"writing {path.name}", need_bytes=len(content)):
        try:
            _write_durably(temporary, content)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        fsync_directory(path.parent)


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        view = memoryview(content)
        while view:  # a write may be short: a signal, a nearly full disk
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Ways to damage a checkpoint: a table of (name, function, words of the reason). Loaded by path; it knows no fixture and no test.

Each function takes the newest checkpoint and an older valid one, and leaves the older one as it is. Files are found by
their role, so that the table also fits checkpoints of a real training run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo.runs.manifest import checksum
from orpo.runs.names import MANIFEST

Apply = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Damage:
    name: str
    apply: Apply
    reason: str  # a regular expression that one of the reasons must match


def role(checkpoint: Path, *patterns: str) -> Path:
    """The largest file that matches the first pattern with any match."""
    for pattern in patterns:
        found = [path for path in checkpoint.rglob(pattern) if path.is_file() and path.name != MANIFEST]
        if found:
            return max(found, key=lambda path: path.stat().st_size)
    raise FileNotFoundError(f"{checkpoint} has nothing like {patterns}")


ROLES: dict[str, tuple[str, ...]] = {
    "weights": ("*.safetensors",),
    "optimizer": ("optimizer*",),
    "scheduler": ("scheduler*",),
    "random state": ("rng_state*",),
    "trainer state": ("trainer_state.json",),
}


def on_file(kind: str, change: Callable[[Path], None]) -> Apply:
    return lambda newest, older: change(role(newest, *ROLES[kind]))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def drop_last_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 512)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def zero_block(path: Path) -> None:
    content = bytearray(path.read_bytes())
    block = slice(len(content) // 3, len(content) // 3 + 4096)
    # A lost sector of a file that holds zeros there changes nothing; the whole file then serves as the block.
    block = block if any(content[block]) else slice(0, len(content))
    content[block] = bytes(len(content[block]))
    path.write_bytes(content)


def other_bytes_same_size_and_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "data.bin").write_bytes(b"x")


def link_instead(path: Path) -> None:
    """To the very same bytes, kept elsewhere: a link can be pointed at anything later."""
    copy = path.parent.parent / f"moved-{path.name}"
    path.rename(copy)
    path.symlink_to(copy)


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def rename_file(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.old"))


def weights_of_older(newest: Path, older: Path) -> None:
    shutil.copyfile(role(older, *ROLES["weights"]), role(newest, *ROLES["weights"]))


def sneak_in(name: str) -> Apply:
    return lambda newest, older: (newest / name).write_bytes(b"\x80\x04.") and None


def sneak_in_link(newest: Path, older: Path) -> None:
    (newest / "more.safetensors").symlink_to(role(older, *ROLES["weights"]))


def on_manifest(change: Callable[[dict[str, Any]], object], *, reseal: bool = True) -> Apply:
    """Changes the object; resealed, the checksum of the manifest fits again, as after a careful edit by hand."""

    def apply(newest: Path, older: Path) -> None:
        path = newest / MANIFEST
        value = json.loads(path.read_text())
        change(value)
        if reseal:
            value["checksum"] = checksum(value)
        path.write_text(json.dumps(value))

    return apply


def manifest_text(change: Callable[[bytes], bytes]) -> Apply:
    return lambda newest, older: (newest / MANIFEST).write_bytes(change((newest / MANIFEST).read_bytes())) and None


def manifest_file(change: Callable[[Path], None]) -> Apply:
    return lambda newest, older: change(newest / MANIFEST)


def manifest_of_older(newest: Path, older: Path) -> None:
    shutil.copyfile(older / MANIFEST, newest / MANIFEST)


def forget_optimizer(newest: Path, older: Path) -> None:
    """Gone from the directory and from a manifest that fits: only the list of required files can tell."""
    path = role(newest, *ROLES["optimizer"])
    name = path.relative_to(newest).as_posix()
    path.unlink()
    on_manifest(lambda value: value.update(files=[entry for entry in value["files"] if entry["path"] != name]))(newest, older)


def path_of_first_file(text: str) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["files"][0].update(path=text)


def nested_deeply(text: bytes) -> bytes:
    return b'{"format_version": 1, "x": ' + b"[" * 700 + b"]" * 700 + b"}"


def link_to_older(newest: Path, older: Path) -> None:
    shutil.rmtree(newest)
    newest.symlink_to(older, target_is_directory=True)


def empty_directory(newest: Path, older: Path) -> None:
    shutil.rmtree(newest)
    newest.mkdir()


def file_instead_of_checkpoint(newest: Path, older: Path) -> None:
    shutil.rmtree(newest)
    newest.write_bytes(b"checkpoint")


CHANGED = "was changed after it was written"

DAMAGES: list[Damage] = [
    *(Damage(f"{kind} cut in half", on_file(kind, cut_in_half), r"has \d+ bytes, \d+ bytes are expected") for kind in ROLES),
    *(Damage(f"{kind} empty", on_file(kind, empty), r"is empty, \d+ bytes are expected") for kind in ROLES),
    *(Damage(f"{kind} with a flipped bit", on_file(kind, flip_bit), CHANGED) for kind in ROLES),
    *(Damage(f"{kind} missing", on_file(kind, Path.unlink), "is missing") for kind in ROLES),
    Damage("weights one byte short", on_file("weights", drop_last_byte), "bytes are expected"),
    Damage("weights with bytes added", on_file("weights", grow), "bytes are expected"),
    Damage("weights with a block of zeros", on_file("weights", zero_block), CHANGED),
    Damage("weights with other bytes, same size and time", on_file("weights", other_bytes_same_size_and_time), CHANGED),
    Damage("weights of the older checkpoint", weights_of_older, f"{CHANGED}|bytes are expected"),
    Damage("weights under another name", on_file("weights", rename_file), "is missing"),
    Damage("a directory instead of the weights", on_file("weights", directory_instead), "is a directory, a file is expected"),
    Damage("a link instead of the weights", on_file("weights", link_instead), "is a symbolic link, a file is expected"),
    Damage("a pipe instead of the optimizer", on_file("optimizer", pipe_instead), "is a device, pipe or socket"),
    Damage("a pickle sneaked in", sneak_in("pytorch_model.bin"), r"pytorch_model.bin is not in the manifest \(it was added later\)"),
    Damage("a link sneaked in", sneak_in_link, "more.safetensors is not in the manifest"),
    Damage("manifest missing", manifest_file(Path.unlink), "has no manifest.json, so it was not published by orpo"),
    Damage("manifest cut in half", manifest_file(cut_in_half), r"manifest.json is not valid JSON \(.*line \d+ column \d+\)"),
    Damage("manifest empty", manifest_file(empty), "manifest.json is empty"),
    Damage("manifest of zero bytes", manifest_text(lambda text: bytes(len(text))), "manifest.json is not valid JSON"),
    Damage("manifest not text", manifest_text(lambda text: b"\x89PNG\xff\xfe"), r"manifest.json is not text \(byte 0 is not UTF-8\)"),
    Damage("manifest a list", manifest_text(lambda text: b"[1, 2]"), "manifest.json holds a JSON list, not an object"),
    Damage("manifest an empty object", manifest_text(lambda text: b"{}"), "format version None"),
    Damage("manifest nested without end", manifest_text(lambda text: b"[" * 200_000), "nested too deeply|not valid JSON"),
    Damage("manifest nested deeply", manifest_text(nested_deeply), "is nested too deeply|checksum does not fit"),
    Damage("manifest with a key twice", manifest_text(lambda text: text.replace(b"{", b'{"step": 1, ', 1)), "has the key 'step' twice"),
    Damage("manifest with NaN", manifest_text(lambda text: text.replace(b"{", b'{"x": NaN, ', 1)), "holds NaN, which is not JSON"),
    Damage("manifest a link", manifest_file(link_instead), "manifest.json is a symbolic link"),
    Damage("manifest a directory", manifest_file(directory_instead), "manifest.json is not a file"),
    Damage("manifest of the older checkpoint", manifest_of_older, "manifest.json is of step"),
    Damage("manifest of another step", on_manifest(lambda value: value.update(step=10**6)), "is of step 1000000, the folder is called"),
    Damage("manifest of another run", on_manifest(lambda value: value.update(run_id="0" * 12)), "belongs to run 000000000000"),
    Damage("manifest of a later format", on_manifest(lambda value: value.update(format_version=2)), "has format version 2"),
    Damage(
        "manifest with a changed setting",
        on_manifest(lambda value: value["identity"].update(beta=9.0), reseal=False),
        "checksum does not fit",
    ),
    Damage("manifest with another sha256", on_manifest(lambda value: value["files"][0].update(sha256="0" * 64)), CHANGED),
    Damage("manifest with another size", on_manifest(lambda value: value["files"][0].update(size=1)), "1 bytes are expected"),
    Damage("manifest with a negative step", on_manifest(lambda value: value.update(step=-1)), "value of the wrong kind"),
    Damage("manifest without a field", on_manifest(lambda value: value.pop("identity")), "incomplete"),
    Damage("manifest without files", on_manifest(lambda value: value.update(files=[])), "is not in the manifest"),
    Damage("manifest with a file twice", on_manifest(lambda value: value["files"].append(value["files"][-1])), "one is listed twice"),
    Damage("manifest that leads outside", on_manifest(path_of_first_file("../../etc/passwd")), "leads outside the checkpoint"),
    Damage("manifest with an absolute path", on_manifest(path_of_first_file("/etc/passwd")), "is not a relative path"),
    Damage("manifest that lists itself", on_manifest(path_of_first_file(MANIFEST)), "names the manifest itself"),
    Damage("optimizer gone from directory and manifest", forget_optimizer, "is required to resume"),
    Damage("a link to the older checkpoint", link_to_older, "is a symbolic link"),
    Damage("an empty directory", empty_directory, "has no manifest.json"),
    Damage("a file instead of the checkpoint", file_instead_of_checkpoint, "is not a directory"),
]

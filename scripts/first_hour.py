"""Provokes what goes wrong in the first hour, as a new user would, and writes docs/first-hour.md from what the commands print.

python scripts/first_hour.py > docs/first-hour.md

Commands run inside this process, in a folder of their own, with the Hub forbidden. Those that ask a Hub run in a second process against
one on this machine that answers as the Hub does: that a model is gated, that there is none, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

INTRODUCTION = """\
# The first hour: what goes wrong, and what is said about it

Each of these was provoked, and this is what was printed. A message says where, what is wrong, what was being done, what was expected,
and what to do; none is a traceback. The exit code says the kind: 2 usage or settings, 3 data, 6 storage, 7 memory (the README has all).

This page is written by `scripts/first_hour.py` from the commands themselves; a test holds it to what they print."""


@dataclass(frozen=True, slots=True)
class Case:
    """One mistake. `world` is what the machine is like: '' as it is, 'hub' and 'down' for a Hub that answers and none, or what fails."""

    title: str
    command: str
    exit_code: int
    world: str = ""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a command printed as its error, with all that differs from machine to machine taken out, and its exit code."""

    text: str
    exit_code: int


CASES = (
    Case("Nothing given", "train", 2),
    Case("No model", "train --data pairs.jsonl", 2),
    Case("No data", "train --model model", 2),
    Case("A path to data that leads nowhere", "train --model model --data pair.jsonl", 3),
    Case("A path to a model that leads nowhere", "train --model mdoel --data pairs.jsonl", 2),
    Case("A folder that holds no model", "train --model notes --data pairs.jsonl", 2),
    Case("A file in place of a model", "train --model pairs.jsonl --data pairs.jsonl", 2),
    Case("Columns of other names", "check questions.jsonl", 3),
    Case("A column that is not there", "check questions.jsonl --columns prompt=query,chosen=good,rejected=bad", 3),
    Case("A broken line", "check broken.jsonl", 3),
    Case("An empty file", "check empty.jsonl", 3),
    Case("Labelled answers where pairs are needed", "train --model model --data labelled.jsonl", 3),
    Case("Conversations, and a base model without a chat template", "train --model model --data chat.jsonl", 2),
    Case("A key of the YAML with a slip", "train orpo.yaml", 2),
    Case("A flag with a slip", "train --model model --data pairs.jsonl --learning-rat 1e-5", 2),
    Case("A command with a slip", "tarin --model model --data pairs.jsonl", 2),
    Case("A device", "train --model model --data pairs.jsonl --device cuda", 2),
    Case("float16", "train --model model --data pairs.jsonl --dtype float16", 2),
    Case("More positions than the model has", "train --model model --data pairs.jsonl --max-length 4096", 2),
    Case("A folder with other things in it as the run directory", "train --model model --data pairs.jsonl --output-dir notes", 2),
    Case("A run that is not there", "eval runs/orpo-model-1 --data pairs.jsonl", 2),
    Case("A model of the Hub, with the Hub forbidden", "train --model org/model --data pairs.jsonl", 2),
    Case("Data of the Hub, with the Hub forbidden", "check org/pairs", 3),
    Case("A model of the Hub, without a network", "train --model org/model --data pairs.jsonl", 2, "down"),
    Case("Data of the Hub, without a network", "check org/pairs", 3, "down"),
    Case("A model that the Hub does not have", "train --model org/modle --data pairs.jsonl", 2, "hub"),
    Case("Data that the Hub does not have", "check org/pears", 3, "hub"),
    Case("A gated model", "train --model org/gated --data pairs.jsonl", 2, "hub"),
    Case("Gated data", "check org/gated", 3, "hub"),
    Case("Out of memory", "train --model model --data pairs.jsonl --holdout 0 --num-samples 0 --output-dir large", 7, "full memory"),
    Case("A full disk", "train --model model --data pairs.jsonl --max-steps 1 --num-samples 0 --output-dir last", 6, "full disk"),
)


def prepare(folder: Path, model: Path) -> None:
    """Nothing; `folder` has the files that the cases name, and a copy of `model`."""
    rows = [{"prompt": f"what is the capital of land {i}?", "chosen": " it is a large city.", "rejected": " no idea."} for i in range(8)]
    tables: dict[str, list[dict[str, Any]]] = {
        "pairs.jsonl": rows,
        "questions.jsonl": [{"query_text": row["prompt"], "good": row["chosen"], "bad": row["rejected"]} for row in rows],
        "chat.jsonl": [{name: [_turn(name, text)] for name, text in row.items()} for row in rows],
        "labelled.jsonl": [
            {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"} for row in rows for name in ("chosen", "rejected")
        ],
        "empty.jsonl": [],
    }
    for name, table in tables.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in table))
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    (folder / "broken.jsonl").write_text("\n".join([*lines[:2], lines[2][:-12], *lines[3:]]) + "\n")
    (folder / "orpo.yaml").write_text("model: model\ndata: pairs.jsonl\nlearning_rat: 8e-6\n")
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").write_text("align it\n")
    shutil.copytree(model, folder / "model")


def _turn(name: str, text: str) -> dict[str, str]:
    return {"role": "user" if name == "prompt" else "assistant", "content": text.strip()}


def spoken(cases: Sequence[Case], folder: Path) -> list[Spoken]:
    """What the command of each case printed in `folder`, one after the other, inside this process."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        with mock.patch.dict(os.environ, {"CI": "1", "COLUMNS": "110", "NO_COLOR": "1"}):
            return [_spoken(case, folder) for case in cases]
    finally:
        os.chdir(here)


def _spoken(case: Case, folder: Path) -> Spoken:
    from orpo.cli.main import main

    said, code = io.StringIO(), 0
    with WORLDS[case.world](), mock.patch.object(sys, "argv", ["orpo", *shlex.split(case.command)]):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            try:
                main()
            except SystemExit as stop:
                code = int(stop.code or 0)
    return Spoken(_the_same_everywhere(said.getvalue(), folder), code)


def _the_same_everywhere(text: str, folder: Path) -> str:
    """`text` without this machine's folders, its free memory and the run's number."""
    text = text.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
    text = re.sub(r"http://127\.0\.0\.1:\d+", "https://huggingface.co", text)
    text = re.sub(r"\d[\d.]* (GiB|MiB|KiB)( \(\d+ bytes\))?", "N \\1", text)
    text = re.sub(r"(tokens_per_micro_batch: )\d+", "\\1N", text)
    text = re.sub(r"staging-[0-9a-f]+", "staging-RUN", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@contextlib.contextmanager
def _down() -> Iterator[None]:
    """No name of another machine can be looked up."""

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with mock.patch.object(socket, "getaddrinfo", unknown):
        yield


@contextlib.contextmanager
def _full_memory() -> Iterator[None]:
    """The first pass that is trained on does not fit."""
    import torch

    from orpo.engine import model

    hidden = model.packed_hidden

    def too_much(*arguments: Any) -> Any:
        if not torch.is_grad_enabled():
            return hidden(*arguments)
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000000000 bytes.")

    with mock.patch.object(model, "packed_hidden", too_much):
        yield


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    """No checkpoint can be written."""
    from orpo.training import checkpointing

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with mock.patch.object(checkpointing, "save_body", full):
        yield


WORLDS: dict[str, Any] = {"": nullcontext, "hub": nullcontext, "down": _down, "full memory": _full_memory, "full disk": _full_disk}


class FakeHub(BaseHTTPRequestHandler):
    """Answers as the Hub does to somebody without a token: what is gated is gated, all else does not exist."""

    def do_GET(self) -> None:
        is_gated = "gated" in self.path
        text = "Access to org/gated is restricted. You must be authenticated to access it." if is_gated else "Repository not found"
        body = json.dumps({"error": text}).encode()
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo" if is_gated else "RepoNotFound")
        self.send_header("X-Error-Message", text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is printed."""


@contextlib.contextmanager
def _hub() -> Iterator[str]:
    """The address of a FakeHub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server:
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def spoken_online(folder: Path) -> list[Spoken]:
    """What the cases that ask a Hub printed in `folder`: in a process of its own, as the libraries read the Hub's address once."""
    forbidden = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in forbidden}
    environment |= {"HF_HOME": str(folder / "hub-cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    with _hub() as address:
        environment["HF_ENDPOINT"] = address
        command = [sys.executable, __file__, "--online", str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [Spoken(**one) for one in json.loads(done.stdout)]


def is_online(case: Case) -> bool:
    """Whether the case asks a Hub."""
    return case.world in ("hub", "down")


def page(said: Sequence[Spoken]) -> str:
    """The text of docs/first-hour.md for what the CASES printed."""
    blocks = [
        f"## {case.title}\n\n```console\n$ orpo {case.command}\n{one.text}\n```\n\nExit code {one.exit_code}."
        for case, one in zip(CASES, said, strict=True)
    ]
    return "\n\n".join([INTRODUCTION, *blocks]) + "\n"


def everything(model: Path, folder: Path) -> list[Spoken]:
    """What all CASES printed, in their order."""
    prepare(folder, model)
    local = iter(spoken([case for case in CASES if not is_online(case)], folder))
    online = iter(spoken_online(folder))
    return [next(online if is_online(case) else local) for case in CASES]


def _written() -> AbstractContextManager[str]:
    return tempfile.TemporaryDirectory(prefix="first-hour-")


def main() -> None:
    """Prints the page, or with --online FOLDER the cases that ask a Hub as JSON."""
    if sys.argv[1:2] == ["--online"]:
        print(json.dumps([asdict(one) for one in spoken([case for case in CASES if is_online(case)], Path(sys.argv[2]))]))
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    from make_tiny_llama import make_tiny_llama

    with _written() as models, _written() as folder:
        print(page(everything(make_tiny_llama(Path(models) / "model"), Path(folder))), end="")


if __name__ == "__main__":
    main()

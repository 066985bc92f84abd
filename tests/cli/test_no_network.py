"""Local data and a local model: no command asks the network for anything, even where nothing forbids it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The first attempt to look up a name or to reach another machine is told and ends the process. A unix socket stays on the machine.
GUARDED = """
import json, os, sys

def watch(event, arguments):
    if event == "socket.getaddrinfo" or event == "socket.gethostbyname":
        target = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        target = arguments[1]
        target = target[0] if isinstance(target, tuple) else None
    else:
        return
    if target not in (None, "localhost", "127.0.0.1", "::1"):
        print("ATTEMPT", event, target, file=sys.stderr, flush=True)
        os._exit(99)

sys.addaudithook(watch)
from orpo.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["orpo", *arguments]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    print("DONE", arguments[0], flush=True)
"""

REMOVED = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_TOKEN")


@pytest.fixture
def guarded(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `orpo ARGUMENTS` for each of several commands in one process of its own, with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in REMOVED}
    environment |= {"HOME": str(home), "HF_HOME": str(home / "hf"), "XDG_CACHE_HOME": str(home / "cache"), "CI": "1"}

    def run(*commands: tuple[object, ...]) -> subprocess.CompletedProcess[str]:
        given = json.dumps([[str(argument) for argument in arguments] for arguments in commands])
        program = [sys.executable, "-c", GUARDED, given]
        return subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300, check=False)

    return run


def test_the_guard_sees_a_question_to_the_hub(guarded: Callable[..., Any]) -> None:
    done = guarded(("check", "somebody/some-data"))
    assert done.returncode == 99, done.stderr
    assert done.stderr.startswith("ATTEMPT socket.getaddrinfo huggingface.co")


def test_local_work_asks_the_network_for_nothing(guarded: Callable[..., Any], tiny_llama: Path, pairs_file: Path, tmp_path: Path) -> None:
    train = ("train", "--model", tiny_llama, "--data", pairs_file, "--max-steps", 2, "--max-new-tokens", 2, "--holdout", 4)
    done = guarded(
        ("check", pairs_file, "--model", tiny_llama, "--show", 1),
        (*train, "--save-steps", 1, "--output-dir", "full"),
        ("eval", "full", "--data", pairs_file),
        (*train, "--save-steps", 1, "--output-dir", "adapter", "--use-peft", "--lora-r", 4, "--template", "chatml"),
        ("eval", "adapter", "--data", pairs_file),
    )
    assert "ATTEMPT" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("DONE")]
    assert said == ["DONE check", "DONE train", "DONE eval", "DONE train", "DONE eval"]
    assert not (tmp_path / "home" / "hf").exists(), "something was written to the cache of the Hub"

"""Every shape of data that is known by name, from a file to a report in two commands, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sessions import SHAPE_NAMES, from_file_to_report


@pytest.mark.soak
@pytest.mark.parametrize("shape", SHAPE_NAMES)
def test_two_commands_lead_from_a_file_to_a_report(shape: str, tmp_path: Path) -> None:
    def orpo(*arguments: object) -> Any:
        command = [sys.executable, "-m", "orpo", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"CI": "1"}, timeout=300, check=False)
        return SimpleNamespace(exit_code=done.returncode, out=done.stdout, err=done.stderr)

    from_file_to_report(orpo, shape, tmp_path)

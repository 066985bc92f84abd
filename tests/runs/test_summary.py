"""A run is read back as it was written; a damaged file is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orpo.errors import StorageError, UserError
from orpo.runs.atomic import write_json_atomic
from orpo.runs.metrics import MetricsLog
from orpo.runs.summary import RunSummary, read_run, read_summary, write_summary

SUMMARY = RunSummary(
    status="done",
    command=("orpo", "demo"),
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
    seconds=60.5,
    steps=150,
    exit_code=0,
    sections={"evaluation": {"accuracy": [0.8, 0.9]}},
)


def test_a_summary_comes_back_equal(run_dir):
    write_summary(run_dir, SUMMARY)
    assert read_summary(run_dir) == SUMMARY
    grown = SUMMARY.with_section("cost", {"seconds": 1})
    assert grown.sections == {"evaluation": {"accuracy": [0.8, 0.9]}, "cost": {"seconds": 1}}


def test_everything_in_a_run_directory_is_read(run_dir):
    write_summary(run_dir, SUMMARY)
    (run_dir / "config.resolved.yaml").write_text("beta: 0.1  # default\n")
    (run_dir / "README.md").write_text("# card\n")
    write_json_atomic(run_dir / "data_report.json", {"pairs": 400})
    write_json_atomic(run_dir / "env.json", {"torch": "2"})
    for name in ("metrics.jsonl", "samples.jsonl"):
        with MetricsLog(run_dir / name) as log:
            log.append({"step": 1, "name": name})
    run = read_run(run_dir)
    assert (run.config_text, run.card_text) == ("beta: 0.1  # default\n", "# card\n")
    assert (run.data_report, run.environment, run.summary) == ({"pairs": 400}, {"torch": "2"}, SUMMARY)
    assert run.metrics == ({"step": 1, "name": "metrics.jsonl"},)
    assert run.samples == ({"step": 1, "name": "samples.jsonl"},)
    assert run.name == "run-1"


def test_missing_pieces_of_a_run_that_just_began_are_none(run_dir):
    (run_dir / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"ste')
    run = read_run(run_dir)
    assert run.metrics == ({"step": 1},)
    assert [run.config_text, run.samples, run.data_report, run.environment, run.summary, run.card_text] == [None] * 6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", b"{", "is not valid JSON"),
        ("summary.json", b"[]", "does not hold a JSON object"),
        ("summary.json", b"{}", "does not hold a run's summary"),
        ("summary.json", b'{"status": "fine", "command": [], "started": "x"}', "status 'fine', expected one of running, done"),
        ("summary.json", b'{"status": "done", "command": [], "started": "x", "steps": "9"}', "numbers are expected"),
        ("summary.json", b'{"status": "done", "command": [], "started": "x", "surprise": 1}', "surprise"),
        ("env.json", b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        ("data_report.json", b"", "is not valid JSON"),
        ("config.resolved.yaml", b"\xff\xfe", "is not UTF-8 text"),
        ("samples.jsonl", b"x\n{}\n", "samples.jsonl:1: this line is damaged"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(name, content, words, run_dir):
    write_summary(run_dir, SUMMARY)
    (run_dir / name).write_bytes(content)
    with pytest.raises(StorageError, match=words) as caught:
        read_run(run_dir)
    assert str(caught.value).startswith(str(run_dir / name))


def test_what_is_no_run_directory_is_the_users_error(run_dir, tmp_path):
    (run_dir / "README.md").write_text("any folder has one")
    for path, words in [
        (run_dir, "this folder holds no run"),
        (tmp_path / "missing", "no such folder"),
        (run_dir / "README.md", "a file, not a folder"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            read_run(path)
        assert caught.value.exit_code == 2


def test_the_room_imports_neither_torch_nor_transformers():
    code = (
        "import importlib, pkgutil, sys, orpo.runs\n"
        "for module in pkgutil.iter_modules(orpo.runs.__path__): importlib.import_module('orpo.runs.' + module.name)\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

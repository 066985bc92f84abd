"""Secrets do not reach a file."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from orpo.runs.atomic import write_json_atomic, write_text_atomic
from orpo.runs.checkpoints import publish_checkpoint
from orpo.runs.manifest import BaseModel, CheckpointFacts
from orpo.runs.names import MANIFEST
from orpo.runs.redact import redact, redact_text, secret_values
from orpo.runs.resume import changed_since, resume_point
from orpo.runs.summary import RunSummary, write_summary

SECRET = 'p@ss"wörd/with specials'


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "my_secret",
        "DB_PASSWORD_2",
        "GOOGLE_CREDENTIALS",
        "SIGNING_KEYS",
    ],
)
def test_values_of_variables_with_secret_names_are_redacted(name):
    assert redact_text(f"x {SECRET} y", environment={name: SECRET}) == f"x [redacted {name}] y"


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "KEYBOARD_LAYOUT", "HF_TOKEN_PATH", "SSH_KEY_FILE", "HOME", "MAX_TOKENS", "MONKEYS_NAME"]
)
def test_values_of_other_variables_stay(name):
    assert redact_text("the value 12345678", environment={name: "12345678"}) == "the value 12345678"


def test_short_values_stay_because_they_occur_everywhere():
    assert redact_text("a test", environment={"API_KEY": "test"}) == "a test"


def test_a_secret_is_found_escaped_for_json_and_for_a_url():
    environment = {"API_KEY": SECRET}
    for spelling in (json.dumps({"x": SECRET}), f"https://h/?k={quote(SECRET, safe='')}"):
        assert "rd" not in redact_text(spelling, environment=environment).replace("redacted", "")


def test_a_secret_that_contains_another_goes_whole():
    environment = {"A_KEY": "abcdefgh", "B_KEY": "abcdefgh-and-more"}
    assert redact_text("abcdefgh-and-more", environment=environment) == "[redacted B_KEY]"
    assert list(secret_values(environment)) == ["abcdefgh-and-more", "abcdefgh"]


# Put together here, so that a scanner of this repository finds no token.
SHAPES = [
    "hf_" + "aB3" * 11 + "x",
    "sk-" + "proj-" + "a1B2" * 8,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11A" * 10,
    "AKIA" + "ABCD1234" * 2,
    "xoxb-" + "12345-" * 3 + "abc",
]


@pytest.mark.parametrize("secret", SHAPES, ids=lambda secret: secret[:6])
def test_known_shapes_of_tokens_are_redacted_without_a_variable(secret):
    assert redact_text(f'"{secret}"', environment={}) == '"[redacted]"'


def test_a_login_in_a_url_is_redacted():
    assert redact_text("git clone https://me:hunter2@host/x", environment={}) == "git clone https://[redacted]@host/x"


@pytest.mark.parametrize(
    "text",
    [
        "hf_transfer",
        "task-management-of-large-teams-is-hard",
        "disk-usage-2024-report-of-the-year-123",
        "sk-learn",
        "http://host:80/a",
        "sk-" + "word-" * 8,
    ],
)
def test_ordinary_words_stay(text):
    assert redact_text(text, environment={}) == text


def test_values_in_nested_json_are_redacted_and_other_types_left():
    value = {"a": [SECRET, 1, None, True, {"b": f"<{SECRET}>"}], SECRET: 2.5}
    expected = {"a": ["[redacted KEY]", 1, None, True, {"b": "<[redacted KEY]>"}], "[redacted KEY]": 2.5}
    assert redact(value, environment={"KEY": SECRET}) == expected


def test_no_secret_is_in_any_file_of_a_run(run_dir, writer, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    write_text_atomic(run_dir / "config.resolved.yaml", f"hub_token: {SECRET}\n")
    write_json_atomic(run_dir / "env.json", {"token": SECRET})
    write_summary(run_dir, RunSummary("failed", ("orpo", "train", f"--token={SECRET}"), "now", error=f"401 for {SECRET}"))
    facts = CheckpointFacts(
        0.0, 0, 1, identity={"data": SECRET}, free={"x": [SECRET]}, base_model=BaseModel(f"https://{SECRET}@hub/m", None, "")
    )
    publish_checkpoint(run_dir, 1, write_files=writer(1), facts=facts)
    assert changed_since(resume_point(run_dir).manifest, facts) == [], "redaction must not look like a changed setting"
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert run_dir / "checkpoint-1" / MANIFEST in files
    for path in files:
        content = path.read_bytes()
        assert SECRET.encode() not in content
        assert json.dumps(SECRET)[1:-1].encode() not in content

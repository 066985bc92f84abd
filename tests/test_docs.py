"""What the documents say is so: paths exist, commands and flags are real, the front page is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_front_page_is_under_150_lines(root: Path) -> None:
    assert len((root / "README.md").read_text().splitlines()) < 150


GUIDES = [
    "docs/quick-start.md",
    "docs/align.md",
    "docs/reading-the-report.md",
    "docs/bad-data.md",
    "docs/data-formats.md",
    "docs/chat-and-generate.md",
]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/decisions/README.md", *GUIDES])
def test_links_and_paths_lead_somewhere(root: Path, name: str) -> None:
    page = root / name
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert not missing
    named = re.findall(r"`((?:src|docs|tests|scripts|benchmarks|recipes)/[\w./-]*)`", page.read_text())
    assert not [path for path in named if not (root / path).exists()]


def test_every_orpo_command_and_flag_in_the_documents_exists(root: Path) -> None:
    import typer

    from orpo.cli.main import app

    commands = typer.main.get_command(app).commands
    text = "\n".join(path.read_text() for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))])
    used = re.findall(r"(?m)(?:^    |`)orpo ([a-z]+)((?: [^`\n#|]*)?)", text)
    assert len(used) > 8
    for command, rest in used:
        assert command in commands, command
        known = {option for parameter in commands[command].params for option in (*parameter.opts, *parameter.secondary_opts)}
        known |= {"--help"}  # not among the parameters
        for flag in re.findall(r"(--[a-z][a-z-]*)", rest):
            assert flag in known, f"orpo {command} {flag}"


def test_the_exit_codes_of_the_front_page_are_those_of_the_error_tree(root: Path) -> None:
    import orpo.errors as errors

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OrpoError)}
    page = (root / "README.md").read_text().split("Exit codes:")[1].split("\n\n")[0]
    assert codes <= {int(number) for number in re.findall(r"\b(\d+)\b", page)}


def test_every_decision_is_listed(root: Path) -> None:
    listed = (root / "docs/decisions/README.md").read_text()
    assert not [path.name for path in (root / "docs/decisions").glob("*.md") if path.name != "README.md" and path.name not in listed]


def test_no_file_of_ours_is_longer_than_a_reader_can_hold(root: Path) -> None:
    assert not [path for path in (root / "src").rglob("*.py") if len(path.read_text().splitlines()) > 300]

"""Every kind of finding has its two sentences, and docs/bad-data.md says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orpo.data.advice import ADVICE, DROPPED, WARNINGS, advice_table, renewed

KINDS = re.compile(r"^\| `([a-z-]+)` \| (dropped|warning) \|", re.MULTILINE)


def test_every_kind_of_dropped_row_and_warning_in_the_data_formats_has_advice(root: Path) -> None:
    page = (root / "docs" / "data-formats.md").read_text(encoding="utf-8")
    kinds = KINDS.findall(page)
    assert len(kinds) > 15
    assert not [(kind, severity) for kind, severity in kinds if kind not in ADVICE[severity]]


def test_every_kind_that_the_code_names_as_dropped_or_warning_has_advice(root: Path) -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (root / "src/orpo/data").rglob("*.py") if path.name != "advice.py")
    warned = set(re.findall(r'(?:tally\.warn\(\s*|warnings\.append\(\(|yield |told = \()"([a-z-]+)", ', source))
    warned |= set(re.findall(r'\("([a-z-]+)", found\.', source))
    dropped = set(re.findall(r'\bdropped\(\s*"([a-z-]+)"', source))
    marked = re.findall(r'Problem\(\s*"([a-z-]+)",[^\n]*?(?:severity=)?"(dropped|warning)"', source)
    found = {*marked, *((kind, "warning") for kind in warned), *((kind, "dropped") for kind in dropped)}
    assert len(warned) > 18
    assert len(dropped) > 3
    assert len(set(marked)) > 5
    assert not [(kind, severity) for kind, severity in found if kind not in ADVICE[severity]]


@pytest.mark.parametrize("advice", [*DROPPED.values(), *WARNINGS.values()])
def test_advice_says_something_and_ends_without_a_stop(advice) -> None:
    for text in (advice.effect, advice.fix):
        assert len(text.split()) >= 2 or text.startswith("nothing")
        assert not text.endswith(".")


def test_the_page_has_the_table_of_the_code(root: Path) -> None:
    page = (root / "docs" / "bad-data.md").read_text(encoding="utf-8")
    assert advice_table() in page
    assert renewed(page) == page

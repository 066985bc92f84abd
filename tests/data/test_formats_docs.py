"""docs/data-formats.md says what is true: one section per shape, whose example is read as that shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from orpo.core.records import PreferencePair, Source
from orpo.data.formats import SHAPES, Shape, detect_shape, read_pairs
from orpo.data.row import Row

SECTION = re.compile(r"^### `([a-z-]+)`\n+(.*?)\n+```json\n(.*?)```", re.MULTILINE | re.DOTALL)
SENTENCE = re.compile(r"^\| `([a-z-]+)` \| (error|dropped|warning) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "data-formats.md").read_text(encoding="utf-8")


def test_the_sections_are_the_table_of_shapes_in_its_order(page: str) -> None:
    sections = SECTION.findall(page)
    assert [name for name, _, _ in sections] == [shape.name for shape in SHAPES]
    for (_, text, _), shape in zip(sections, SHAPES, strict=True):
        assert text.startswith(shape.description[0].upper() + shape.description[1:])


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_example_of_a_section_is_read_as_its_shape(page: str, shape: Shape) -> None:
    example = next(text for name, _, text in SECTION.findall(page) if name == shape.name)
    rows = [Row(value, Source("docs", number)) for number, value in enumerate(objects(example), start=1)]
    found = detect_shape(rows)
    assert found.name == shape.name
    items = list(read_pairs(found, lambda: rows, pair_labelled=found.is_labelled))
    assert [type(item) for item in items] == [PreferencePair]


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def test_the_kinds_of_problems_in_the_page_are_those_in_the_code(page: str, root: Path) -> None:
    told = {name for name, _ in SENTENCE.findall(page)}
    sources = [path.read_text(encoding="utf-8") for path in (root / "src/orpo/data/shapes").glob("*.py")]
    sources.append((root / "src/orpo/data/transcripts.py").read_text(encoding="utf-8"))
    told_by = r"(?:RowProblem\(\s*|dropped\(\s*|Problem\(\s*|yield |told = \(|warnings\.append\(\(|_json\([^,]+, )"
    raised = re.compile(told_by + r'"([a-z]+(?:-[a-z]+)+|null|tie|identical|unpaired|unscored)"')
    assert told == {kind for source in sources for kind in raised.findall(source)}
